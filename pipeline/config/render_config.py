"""How a record becomes a training text: a preset, and a setting for each of its probabilities and thresholds.

The values of a preset are in `pipeline.config.corpus_presets`. An explicit setting replaces the preset's value; a
mapping (weights, styles) is merged into the preset's, key by key.
"""

from collections.abc import Mapping
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import ConfigPart, Expression, merged
from pipeline.config.corpus_presets import PRESETS, WORDS, Preset, Rating
from pipeline.config.recipe_form import added
from pipeline.config.suggestions import did_you_mean
from schemas.corpus_row import LengthClass, Task

Probability = Annotated[float, Field(ge=0, le=1)]
Weights = dict[Task, Annotated[float, Field(ge=0)]]
"""Relative to the other weights of the table; 0 is never drawn."""


class Persons(StrEnum):
    """Where tags that count persons are written."""

    FIRST = "first"
    """Before all others, always in the given part, and not counted for the length class."""
    MIXED = "mixed"
    """Among the other general tags."""


class TaskTables(ConfigPart):
    """Weights of the tasks for each kind of record. A record without tags never gets a task with tags."""

    all: Weights
    """For records with tags, a short and a long caption."""
    tags_long: Weights
    """For records with tags and a long caption."""
    tags_short: Weights
    """For records with tags and a short caption."""
    tags: Weights
    """For records with tags only."""
    captions: Weights
    """For records with a short and a long caption, without tags."""

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
    """Weights of the tasks."""
    persons: Persons
    """Where tags that count persons are written."""
    metadata: bool
    """Whether metadata lines are written. Without them, nothing is dropped either."""
    trim: bool
    """Whether captions are cut to the limits of the length class. A text without a class keeps whole captions."""
    bare_long: bool
    """Whether short_to_long is written `long:` without a space after it; the given part then ends at the colon."""
    title_as_short: Probability = added(default=0.0)
    """Probability that the title (alt text) of a record is its short caption, as in v1's trainer for GBC with 0.5."""


class LengthConfig(ConfigPart):
    """Limits of one length class."""

    min_tags: int = Field(ge=0)
    """Smallest number of general tags; a record has the highest class that it reaches."""
    max_tags: int | None = Field(default=None, ge=1)
    """General tags that tasks starting with tags write; null writes all. Other tasks write all tags."""
    paragraphs: int = Field(ge=1)
    """Maximum paragraphs of the long caption."""
    sentences: int = Field(ge=1)
    """Maximum sentences of the short caption, and of each paragraph of the long one."""


class SentenceSplitter(StrEnum):
    """What splits captions into sentences, of which a length class keeps some."""

    RULES = "rules"
    """JoyFleet's rules: the marks of Latin, Chinese, Japanese, Devanagari, Urdu, Arabic, Armenian, Ethiopic texts."""
    SENTENCEX = "sentencex"
    """The library sentencex: marks and abbreviations of about 300 languages, by the language of the record."""


class SentencesConfig(ConfigPart):
    """How captions are split into sentences. A name is short for `{by: ...}`."""

    short_form = "by"

    by: SentenceSplitter = SentenceSplitter.RULES
    """What splits them; sentencex needs the extra `languages`."""
    language: str = Field(default="en", pattern=r"^[a-z]{2,3}$")
    """With sentencex: the language of captions whose record has none, as an ISO 639 code."""

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.by is SentenceSplitter.RULES and self.language != "en":
            raise ValueError(f"found language {self.language} with by: rules, which have none; allowed: by: sentencex")
        return self

    @property
    def package(self) -> str | None:
        """Name of the library, if one splits."""
        return None if self.by is SentenceSplitter.RULES else self.by.value


class RenderConfig(ConfigPart):
    """The random draws for each record and epoch. Every default is that of the preset."""

    preset: Preset = Preset.TIPO_V2_1
    """Values of all settings that are not given."""
    drop_all_probability: Probability
    """Probability that neither metadata nor general tags are given (DanTagGen: only no general tags)."""
    drop_some_probability: Probability
    """Otherwise: probability that each metadata line is kept or dropped on its own."""
    keep_line_probability: Probability
    """Probability that such a line is kept."""
    gen_meta: Probability
    """If nothing was dropped: probability that a part of the metadata is predicted after the body."""
    given_share: Probability
    """The number of given general tags is uniform in 1 .. max(given_share x tags, 1) + 1; at least one is predicted."""
    given_share_of: int | None = added(default=None, ge=1)
    """The largest number of general tags to which given_share applies, such as 32 as in DanTagGen's trainer, which then
    gives at most 20; null: all tags."""
    loss_on_all_probability: Probability
    """Probability that the given part contributes to the loss too."""
    lengths: dict[LengthClass, LengthConfig]
    """Limits of each length class; all four are needed."""
    longest: LengthClass
    """Highest class that is written."""
    sentences: SentencesConfig = added(default=SentencesConfig())
    """How captions are split into sentences when they are trimmed to the limits of a class."""
    styles: dict[str, StyleConfig]
    """Styles by prefix of the record's `source`; the longest prefix applies, and `default` applies to all others."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if isinstance(value, dict) and isinstance(value.get("styles"), dict):
            under = _preset_of(value, PRESETS)["styles"]
            # A style that the preset does not know starts from its default.
            new = {name: under["default"] for name in value["styles"] if name not in under}
            value = {**value, "styles": merged(new, value["styles"])}
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
    return merged(_preset_of(value, presets), value) if isinstance(value, dict) else value


class ConfidenceConfig(ConfigPart):
    """The smallest confidence with which a tagger's tag is kept. A number is short for `{default: ...}`."""

    default: Probability
    """For all kinds of tags that are not given."""
    general: Probability | None = None
    """For general tags and tags without a category; null: `default`."""
    character: Probability | None = None
    """For characters; null: `default`."""
    copyright: Probability | None = None
    """For copyrights; null: `default`."""
    artist: Probability | None = None
    """For artists; null: `default`."""
    meta: Probability | None = None
    """For meta tags; null: `default`."""

    @model_validator(mode="before")
    @classmethod
    def _of_a_number(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"default": value} if isinstance(value, int | float) else value


class RecordTagsConfig(ConfigPart):
    """Which tags a record keeps. Tags are compared in their normal form: lower case, spaces for underscores."""

    meta_blacklist: tuple[str, ...] = (
        *("(medium)", "commentary", "bad", "translat", "request", "mismatch", "revision", "audio", "video"),
    )
    """Meta tags that contain one of these are removed (HakuBooru, metainfo)."""
    artist_blacklist: tuple[str, ...] = ("banned",)
    """Artist tags that contain one of these are removed."""
    blacklist: tuple[Expression, ...] = ()
    """Regular expressions. A tag of any type that one of them matches as a whole is removed."""
    drop_years: bool = True
    """Whether general tags of four digits are removed."""
    prune_implied: bool = False
    """Whether tags that another tag of the record implies are removed; needs `tag_files.implications`."""
    add_implied: bool = added(default=False)
    """Whether the tags that a tag of the record implies are added, with the type of that tag; needs
    `tag_files.implications`."""
    min_confidence: ConfidenceConfig | None = added(default=None)
    """Smallest confidence of tags with confidences, in all tables and captions without a threshold of their own. By
    default such lists are not read and are counted as `bad_tag_list`. Tags without a confidence are kept."""

    @model_validator(mode="after")
    def _one_use_of_implications(self) -> Self:
        if self.add_implied and self.prune_implied:
            raise ValueError("found add_implied and prune_implied; allowed: one of them")
        return self


class Steps(ConfigPart):
    """A table from a number to a word: the word of the highest step that the number reaches."""

    steps: tuple[tuple[float, str], ...] = Field(min_length=1)
    """(lowest number, word), with falling numbers."""
    below: str | None = None
    """The word below the last step; null writes none."""
    strict: bool = False
    """Whether a number must be above a step to reach it; otherwise an equal number reaches it."""

    @field_validator("steps")
    @classmethod
    def _falling(cls, steps: tuple[tuple[float, str], ...]) -> tuple[tuple[float, str], ...]:
        numbers = [number for number, _ in steps]
        if any(low >= high for high, low in pairwise(numbers)):
            raise ValueError(f"found {', '.join(map(str, numbers))}; allowed: falling numbers")
        return steps


class QualityBy(StrEnum):
    """What the quality word of a record is derived from."""

    FAVORITES_IN_RATING = "favorites_in_rating"
    """Percentile of its favourites among records of its rating."""
    SCORE = "score"
    """Its score itself."""
    SCORE_AND_FAVORITES_IN_YEAR = "score_and_favorites_in_year"
    """Mean of the percentiles of its score and its favourites among records of its year."""
    NONE = "none"
    """No quality word."""


class WordsConfig(ConfigPart):
    """Rating, quality and era words of records. Every default is that of the preset."""

    preset: Preset = Preset.TIPO_V2_1
    """Values of all settings that are not given."""
    ratings: dict[Rating, tuple[str, ...]]
    """Words that are written for each rating, in this order; an empty list writes no line."""
    quality_by: QualityBy
    """What the quality word is derived from."""
    quality: Steps
    """Quality words by percentile (0 to 100) or score, as `quality_by` says."""
    eras: Steps | None
    """Era words by year; null writes none."""

    @model_validator(mode="before")
    @classmethod
    def _over_the_preset(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return _over_preset(value, WORDS)
