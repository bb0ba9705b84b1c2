"""The author's prompt texts, one record per model generation, read from catalog.json.

catalog.json is versioned data: byte-equal copies of the texts in the author's repositories (each
entry names its sources). It is never edited once a run has used it; its digest is in every recipe.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pipeline.config.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.prompts import names

GENERATIONS = tuple(names.MODES)

_SERVABLE = ("alpha-two", "beta-one")
"""Generations that exist as a Hugging Face Llava checkpoint, the only kind that vLLM loads."""

_HUB_MARKS = {"alpha-two": "alpha-two", "beta-one": "beta-one", "standin": "alpha-two"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """One mode in one tone: the three forms of its template, absent where the generation has none."""

    name: str
    tone: str | None
    title: str
    """The author's name of it."""
    no_length: str
    word_count: str | None
    length_class: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """All that one generation of the model was taught to be asked."""

    name: str
    servable: bool
    modes: tuple[Mode, ...]
    length_classes: tuple[str, ...]
    word_counts: tuple[int, ...]
    """Offered by the author's page; other numbers are accepted and remarked on."""
    options: Mapping[str, str]
    """short name -> text, in the order of the author's page."""
    system: str | None
    max_tokens: int


@functools.cache
def _raw() -> bytes:
    return resources.files("pipeline.prompts").joinpath("catalog.json").read_bytes()


@functools.cache
def catalog_digest() -> str:
    """First 16 hex digits of the catalogue's SHA-256."""
    return hashlib.sha256(_raw()).hexdigest()[:16]


@functools.cache
def load_generation(name: str) -> Generation:
    """Return a generation by name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in names.MODES:
        suggestion = did_you_mean(name, GENERATIONS)
        raise ConfigError(f"model.generation: found {name!r}; allowed: {', '.join(GENERATIONS)}{suggestion}")
    entry: dict[str, Any] = json.loads(_raw())["generations"][name]
    modes = [
        _mode(mode, tone, title, entry["types"][title])
        for mode, tones in names.MODES[name].items()
        for tone, title in tones.items()
    ]
    texts: list[str] = entry["extra_options"]
    return Generation(
        name=name,
        servable=name in _SERVABLE,
        modes=tuple(modes),
        length_classes=tuple(entry["length_classes"]),
        word_counts=tuple(int(count) for count in entry["word_counts"]),
        options=dict(zip(names.OPTIONS, texts, strict=False)),
        system=_system(name, entry["system_prompt"]),
        max_tokens=512 if name == "beta-one" else 300,
    )


def _mode(name: str, tone: str | None, title: str, templates: Mapping[str, str]) -> Mode:
    return Mode(
        name=name,
        tone=tone,
        title=title,
        no_length=templates["no_length"],
        word_count=templates.get("word_count"),
        length_class=templates.get("length_class"),
    )


def _system(generation: str, entry: str | dict[str, str] | None) -> str | None:
    return entry[names.SYSTEM_VARIANT[generation]] if isinstance(entry, dict) else entry


def generation_of(model_id: str, given: str | None) -> Generation:
    """Return the generation of a model: the given one, else read off its id.

    Raises:
        ConfigError: neither tells.
    """
    if given is not None:
        return load_generation(given)
    for mark, generation in _HUB_MARKS.items():
        if mark in model_id.lower():
            return load_generation(generation)
    raise ConfigError(
        f"model: {model_id!r} does not tell its generation; set model.generation to one of {', '.join(_SERVABLE)}"
    )
