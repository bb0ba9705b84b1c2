"""What becomes of a text that a quality rule finds fault with: refused, flagged or mended, and how often asked again.

The rules' own thresholds are no settings: they stand with their evidence in `pipeline.quality` and
are versioned as one.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import ConfigPart


class Action(StrEnum):
    """What a rule does to a text that it finds."""

    REJECT = "reject"
    """The text is no caption; it is asked again as `quality.repair` says."""
    FLAG = "flag"
    """The text stays and bears a flag."""
    OFF = "off"


class Truncated(StrEnum):
    """What becomes of a text that ended because `sampling.max_tokens` did."""

    REJECT = "reject"
    FLAG = "flag"
    CUT = "cut"
    """Ends at its last whole sentence or tag; rejected when it has none."""


class Openings(StrEnum):
    """What becomes of prose that opens with talk about the image: `This image shows ...`."""

    FLAG = "flag"
    REMOVE = "remove"
    """What is shown becomes the opening; where that would be no grammatical sentence, the text is rejected."""
    REJECT = "reject"


class Underscores(StrEnum):
    """How the words of a tag are joined."""

    KEEP = "keep"
    UNDERSCORES = "underscores"
    SPACES = "spaces"


class Categories(StrEnum):
    """What becomes of `artist:` and the other prefixes of beta-one's tags."""

    KEEP = "keep"
    STRIP = "strip"


class Script(StrEnum):
    """A writing system that captions may be in."""

    LATIN = "latin"
    GREEK = "greek"
    CYRILLIC = "cyrillic"
    HEBREW = "hebrew"
    ARABIC = "arabic"
    DEVANAGARI = "devanagari"
    THAI = "thai"
    HANGUL = "hangul"
    KANA = "kana"
    HAN = "han"


_FIRST_RULES = ("loop", "refusal", "prompt_echo", "special_tokens", "wrong_form", "foreign_script")
"""Every recipe and every run.json contains these rules with their action. A rule that was added later is off by default
and appears there only if it is on, so that its arrival changes no fingerprint."""


def _complete(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    if not isinstance(value, dict):
        return value
    actions: dict[str, Any] = {**dict.fromkeys(_FIRST_RULES, Action.REJECT), **value}
    return {name: action for name, action in actions.items() if name in _FIRST_RULES or action != Action.OFF}


class TagsConfig(ConfigPart):
    """How tag lists are written. Holds for the tag modes, not for the prompt modes."""

    normalize: bool = True
    """Blanks trimmed, empty tags and repeated ones out, order kept, joined by `, `."""
    underscores: Underscores = Underscores.KEEP
    categories: Categories = Categories.KEEP
    vocabulary: str | None = None
    """A local file, one tag a line (the first field of a CSV line): unknown tags are counted and flagged."""

    @model_validator(mode="after")
    def _honoured(self) -> Self:
        if not self.normalize and (self.underscores, self.categories) != (Underscores.KEEP, Categories.KEEP):
            raise ValueError("underscores and categories need normalize: true; allowed with false: keep")
        return self


class RepairConfig(ConfigPart):
    """How a rejected request is asked again, on the same replica, with a seed of its own."""

    attempts: int = Field(default=2, ge=0, le=10)
    """Times asked again; 0 takes the first answer for the last."""
    temperature_add: float = Field(default=0.2, ge=0, le=2)
    """Added to `sampling.temperature` at each further attempt, up to 2: a greedy run draws from then on."""
    repetition_penalty: float | None = Field(default=None, ge=0.5, le=2)
    """Of every further attempt; by default the run's own."""


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    return (value,) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
"""Words or phrases; one may stand without brackets."""


class UserRule(ConfigPart):
    """A rule of the user's own. It finds a text that meets any of its conditions."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,40}$")
    modes: Words = ()
    """Modes that it holds for; none are all."""
    action: Action = Action.REJECT
    pattern: str | None = None
    """A regular expression, searched in the text, case as written."""
    min_words: int | None = Field(default=None, ge=1)
    max_words: int | None = Field(default=None, ge=1)
    forbidden: Words = ()
    """Found when one of these stands in the text, as whole words in any case."""
    required: Words = ()
    """Found when one of these is missing."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        conditions = ("pattern", "min_words", "max_words", "forbidden", "required")
        if not any(getattr(self, name) for name in conditions):
            raise ValueError(f"rule {self.name} has no condition; allowed: at least one of {', '.join(conditions)}")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words={self.min_words} is above max_words={self.max_words}")
        return self

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as err:
                raise ValueError(f"no regular expression: {err}") from err
        return pattern


class QualityConfig(ConfigPart):
    """Which texts become captions."""

    actions: Annotated[dict[str, Action], BeforeValidator(_complete)] = Field(
        default_factory=dict, validate_default=True
    )
    """Rule to action; the rules are those of `pipeline.quality.RULES`."""
    truncated: Truncated = Truncated.FLAG
    openings: Openings = Openings.FLAG
    length_tolerance: float = Field(default=0.3, ge=0, le=1)
    """Share by which the words may miss the request before the row bears too_short or too_long."""
    scripts: tuple[Script, ...] = Field(default=(Script.LATIN,), min_length=1)
    tags: TagsConfig = TagsConfig()
    repair: RepairConfig = RepairConfig()
    rules: tuple[UserRule, ...] = ()

    @field_validator("rules")
    @classmethod
    def _names_once(cls, rules: tuple[UserRule, ...]) -> tuple[UserRule, ...]:
        names = [rule.name for rule in rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rule names {', '.join(twice)} repeat; allowed: each name once")
        return rules
