"""How a record becomes a training text: a preset, and every probability and threshold of it as a setting.

What a preset sets stands in `pipeline.config.presets`; a setting that is given replaces the preset's own, a
mapping (weights, styles) is laid over the preset's key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import Part
from pipeline.config.presets import PRESETS, Preset
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


class TaskTables(Part):
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


class StyleConfig(Part):
    """How the records of some sources are written."""

    tasks: TaskTables
    persons: Persons
    metadata: bool
    """Whether metadata lines are written; without, nothing is dropped either."""
    trim: bool
    """Whether captions are cut to the budget of the length class. A text without a class keeps them whole."""
    bare_long: bool
    """Whether short_to_long is written `long:` without the blank, the user half ending behind the colon."""


class LengthConfig(Part):
    """One length class."""

    min_tags: int = Field(ge=0)
    """General tags from which on it holds; the class is the highest that holds."""
    max_tags: int | None = Field(default=None, ge=1)
    """General tags written by tasks that open with tags; None writes all. Other tasks write all tags."""
    paragraphs: int = Field(ge=1)
    """Of the long caption, at most."""
    sentences: int = Field(ge=1)
    """Of the short caption and of each paragraph of the long one, at most."""


class RenderConfig(Part):
    """What is drawn for each record and each epoch. Every default is the preset's."""

    preset: Preset = Preset.TIPO_V2_1
    drop_all: Probability
    """That neither metadata nor general tags are given (DanTagGen: no general tags alone)."""
    drop_some: Probability
    """Of the other draws: that metadata lines are left out one by one."""
    keep_line: Probability
    """That each of them is kept then."""
    gen_meta: Probability
    """Of draws that drop nothing: that part of the metadata is to be predicted after the body."""
    given_share: Probability
    """Given general tags are 1 .. max(given_share x tags, 1) + 1, drawn evenly; one is always left to predict."""
    loss_all: Probability
    """That the given half bears loss too."""
    lengths: dict[LengthClass, LengthConfig]
    longest: LengthClass
    """The highest class that is written."""
    styles: dict[str, StyleConfig]
    """By how the record's `source` begins; `default` is for all others. The longest match holds."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, dict):
            return value
        name = value.get("preset", cls.model_fields["preset"].default)
        if name not in PRESETS:
            raise ValueError(f"preset: found {name!r}; allowed: {', '.join(Preset)}")
        value = {**value, "styles": _full_styles(PRESETS[Preset(name)]["styles"], value.get("styles", {}))}
        return _laid_over(PRESETS[Preset(name)], value)

    @field_validator("lengths")
    @classmethod
    def _classes(cls, lengths: dict[LengthClass, LengthConfig]) -> dict[LengthClass, LengthConfig]:
        ordered = {name: lengths[name] for name in LengthClass if name in lengths}
        starts = [config.min_tags for config in ordered.values()]
        if len(ordered) < len(LengthClass) or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError("allowed: all four classes, min_tags from 0 upwards")
        return ordered


def _full_styles(preset: Mapping[str, Any], given: Any) -> Any:  # noqa: ANN401 - raw YAML
    """A style that the preset does not know starts from its default."""
    if not isinstance(given, dict):
        return given
    new = {name: preset["default"] for name in given if name not in preset}
    return _laid_over(new, given)


def _laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _laid_over(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged
