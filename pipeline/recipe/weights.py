"""Where a model's weights are, and a digest that identifies them, without loading them."""

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

_STANDIN_NOTES = "README.md"
"""Not part of the stand-in's digest: its text can change without a change of the weights."""

_RECORDED_DIGESTS = {"d2bd0584faf8ac12": "1ebf47487a3912ec"}
"""Digest of the stand-in to the one that the first edition recorded for it, which included its README."""


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
    if model.id == STANDIN:
        folder = Path(pipeline.__file__).parent / "standin" / "model"
        return Weights(path=str(folder), digest=_standin_digest(folder), stated=_stated(folder))
    folder = Path(model.id)
    if (folder / "config.json").is_file():
        return Weights(path=str(folder), digest=_digest(folder), stated=_stated(folder))
    if folder.is_absolute() or model.id.startswith(".") or model.id.count("/") != 1:
        raise ConfigError(
            f"model.id: {model.id!r} is not a folder with a config.json; allowed: {STANDIN}, such a folder, or a hub "
            "id of the form owner/name"
        )
    return Weights(path=model.id, digest=None, stated=None)


def _stated(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _standin_digest(folder: Path) -> str:
    digest = _digest(folder, without=_STANDIN_NOTES)
    return _RECORDED_DIGESTS.get(digest, digest)


def _digest(folder: Path, without: str | None = None) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file() and path.name != without):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        if size <= _HASHED_WHOLE_BYTES:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
