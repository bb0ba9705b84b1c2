"""How a record becomes a training text: a preset, and every probability and threshold of it as a setting.

What a preset sets stands in `pipeline.config.corpus_presets`; a setting that is given replaces the preset's own, a
mapping (weights, styles) is laid over the preset's key by key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import ConfigPart
from pipeline.config.corpus_presets import PRESETS, WORDS, Preset, Rating
from pipeline.config.suggestions import did_you_mean
from schemas.corpus_row import LengthClass, Task

Probability = Annotated[float, Field(ge=0, le=1)]
Weights = dict[Task, Annotated[float, Field(ge=0)]]
"""Relative to the other weights of the table; 0 is never drawn."""


class Persons(StrEnum):
    """Where tags that count persons stand."""

    FIRST = "first"
    """Before all others, always given, not counted for the length class."""
    MIXED = "mixed"
    """General tags like the others."""


class TaskTables(ConfigPart):
    """Weights of the tasks by what a record has. A record without tags never draws a task with tags."""

    all: Weights
    """Tags, a short and a long caption."""
    tags_long: Weights
    """Tags and a long caption."""
    tags_short: Weights
    """Tags and a short caption."""
    tags: Weights
    """Tags alone."""
    captions: Weights
    """A short and a long caption alone."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name, sections in SECTIONS.items():
            table: Weights = getattr(self, name)
            wrong = [task.value for task, weight in table.items() if weight and not sections.issuperset(task.sections)]
            if wrong:
                raise ValueError(
                    f"{name}: found {', '.join(wrong)}, which need more than {' and '.join(sorted(sections))}; "
                    f"allowed: {', '.join(task for task in Task if sections.issuperset(task.sections))}"
                )
        return self


SECTIONS: Mapping[str, frozenset[str]] = {
    "all": frozenset(("tag", "short", "long")),
    "tags_long": frozenset(("tag", "long")),
    "tags_short": frozenset(("tag", "short")),
    "tags": frozenset(("tag",)),
    "captions": frozenset(("short", "long")),
}
"""What the records of each table of `TaskTables` have."""


class StyleConfig(ConfigPart):
    """How the records of some sources are written."""

    tasks: TaskTables
    persons: Persons
    metadata: bool
    """Whether metadata lines are written; without, nothing is dropped either."""
    trim: bool
    """Whether captions are cut to the budget of the length class. A text without a class keeps them whole."""
    bare_long: bool
    """Whether short_to_long is written `long:` without the blank, the user half ending behind the colon."""


class LengthConfig(ConfigPart):
    """One length class."""

    min_tags: int = Field(ge=0)
    """General tags from which on it holds; the class is the highest that holds."""
    max_tags: int | None = Field(default=None, ge=1)
    """General tags written by tasks that open with tags; None writes all. Other tasks write all tags."""
    paragraphs: int = Field(ge=1)
    """Of the long caption, at most."""
    sentences: int = Field(ge=1)
    """Of the short caption and of each paragraph of the long one, at most."""


class RenderConfig(ConfigPart):
    """What is drawn for each record and each epoch. Every default is the preset's."""

    preset: Preset = Preset.TIPO_V2_1
    drop_all_probability: Probability
    """That neither metadata nor general tags are given (DanTagGen: no general tags alone)."""
    drop_some_probability: Probability
    """Of the other draws: that metadata lines are left out one by one."""
    keep_line_probability: Probability
    """That each of them is kept then."""
    gen_meta: Probability
    """Of draws that drop nothing: that part of the metadata is to be predicted after the body."""
    given_share: Probability
    """Given general tags are 1 .. max(given_share x tags, 1) + 1, drawn evenly; one is always left to predict."""
    loss_on_all_probability: Probability
    """That the given half bears loss too."""
    lengths: dict[LengthClass, LengthConfig]
    longest: LengthClass
    """The highest class that is written."""
    styles: dict[str, StyleConfig]
    """By how the record's `source` begins; `default` is for all others. The longest match holds."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if isinstance(value, dict) and isinstance(value.get("styles"), dict):
            under = _preset_of(value, PRESETS)["styles"]
            # A style that the preset does not know starts from its default.
            new = {name: under["default"] for name in value["styles"] if name not in under}
            value = {**value, "styles": _laid_over(new, value["styles"])}
        return _over_preset(value, PRESETS)

    @field_validator("lengths")
    @classmethod
    def _classes(cls, lengths: dict[LengthClass, LengthConfig]) -> dict[LengthClass, LengthConfig]:
        ordered = {name: lengths[name] for name in LengthClass if name in lengths}
        starts = [config.min_tags for config in ordered.values()]
        if len(ordered) < len(LengthClass) or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError("allowed: all four classes, min_tags from 0 upwards")
        return ordered


def _preset_of(value: dict[str, Any], presets: Mapping[Preset, dict[str, Any]]) -> dict[str, Any]:
    name = value.get("preset", Preset.TIPO_V2_1)
    if name not in presets:
        raise ValueError(f"preset: found {name!r}; allowed: {', '.join(presets)}{did_you_mean(str(name), presets)}")
    return presets[Preset(name)]


def _over_preset(value: Any, presets: Mapping[Preset, dict[str, Any]]) -> Any:  # noqa: ANN401 - raw YAML
    """Lay what is given over the preset that it names; a bare name is a preset."""
    if isinstance(value, str):
        value = {"preset": value}
    return _laid_over(_preset_of(value, presets), value) if isinstance(value, dict) else value


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


class RecordTagsConfig(ConfigPart):
    """Which tags a record keeps. Substrings and expressions meet tags in their normal form: lower case, blanks."""

    meta_blacklist: tuple[str, ...] = (
        "(medium)",
        "commentary",
        "bad",
        "translat",
        "request",
        "mismatch",
        "revision",
        "audio",
        "video",
    )
    """Meta tags that hold one of these are left out (HakuBooru, metainfo)."""
    artist_blacklist: tuple[str, ...] = ("banned",)
    """Artist tags that hold one of these are left out."""
    blacklist: tuple[str, ...] = ()
    """Regular expressions; a tag of any type that one of them matches whole is left out."""
    drop_years: bool = True
    """Whether general tags of four digits are left out."""
    prune_implied: bool = False
    """Whether tags that another tag of the record implies are left out; needs a table of implications."""

    @field_validator("blacklist")
    @classmethod
    def _compile(cls, blacklist: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in blacklist:
            try:
                re.compile(pattern)
            except re.error as err:
                raise ValueError(f"{pattern!r} is no regular expression: {err}") from err
        return blacklist


class Steps(ConfigPart):
    """A table from a number to a word: the word of the highest step that the number reaches."""

    steps: tuple[tuple[float, str], ...] = Field(min_length=1)
    """(lowest number, word), the numbers falling."""
    below: str | None = None
    """The word below the last step; None writes none."""
    strict: bool = False
    """Whether a number must lie above its step to reach it."""

    @field_validator("steps")
    @classmethod
    def _falling(cls, steps: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
        numbers = [number for number, _ in steps]
        if any(low >= high for high, low in pairwise(numbers)):
            raise ValueError(f"found {', '.join(map(str, numbers))}; allowed: falling numbers")
        return steps


class QualityBy(StrEnum):
    """What the quality word of a record goes by."""

    FAVORITES_IN_RATING = "favorites_in_rating"
    """Percentile of its favourites among records of its rating."""
    SCORE = "score"
    """Its score itself."""
    SCORE_AND_FAVORITES_IN_YEAR = "score_and_favorites_in_year"
    """Mean of the percentiles of its score and its favourites among records of its year."""
    NONE = "none"


class WordsConfig(ConfigPart):
    """Rating, quality and era words of records. Every default is the preset's."""

    preset: Preset = Preset.TIPO_V2_1
    ratings: dict[Rating, tuple[str, ...]]
    """The words written for each rating, in their order; none writes no line."""
    quality_by: QualityBy
    quality: Steps
    """By percentile (0 to 100) or score, as `quality_by` says."""
    eras: Steps | None
    """By year; None writes none."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return _over_preset(value, WORDS)
