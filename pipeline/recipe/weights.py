"""Where a model's weights are, and a digest that identifies them, without loading them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipeline
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError

STANDIN = "standin"

_HASHED_WHOLE_BYTES = 64 << 20
"""Larger files enter the digest by name and size: hashing 17 GB would take minutes at every start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model on disk or on the hub."""

    path: str
    """Local folder or hub id, as this process would load it."""
    digest: str | None
    """Of a local folder's files; None for a hub id, which its revision identifies."""
    stated: Mapping[str, Any] | None
    """`config.json` of a local folder; None for a hub id."""


def find_weights(model: ModelConfig) -> Weights:
    """Locate a model. `standin` is part of this package, so that every node has its own copy.

    Raises:
        ConfigError: a local path without a model.
    """
    folder = Path(pipeline.__file__).parent / "standin" / "model" if model.id == STANDIN else Path(model.id)
    if (folder / "config.json").is_file():
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return Weights(path=str(folder), digest=_digest(folder), stated=stated)
    if model.id == STANDIN or folder.is_absolute() or model.id.startswith(".") or model.id.count("/") != 1:
        raise ConfigError(
            f"model.id: {model.id!r} is not a folder with a config.json; allowed: {STANDIN}, such a folder, or a hub "
            "id of the form owner/name"
        )
    return Weights(path=model.id, digest=None, stated=None)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        if size <= _HASHED_WHOLE_BYTES:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
