"""What happens to a text that a quality rule matches: it is rejected, flagged or corrected, and requested again.

The thresholds of the built-in rules are not settings: they are in `pipeline.quality` with their evidence, under one
version.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import AS_LIST, ConfigPart, Expression, refuse_repeats
from pipeline.config.recipe_form import added


class Action(StrEnum):
    """What a rule does with a text that it matches."""

    REJECT = "reject"
    """The text does not become a caption; the request is retried as `quality.retry` says."""
    FLAG = "flag"
    """The text becomes a caption with a flag."""
    OFF = "off"
    """The rule is not applied."""


class Truncated(StrEnum):
    """What happens to a text that `sampling.max_tokens` cut."""

    REJECT = "reject"
    FLAG = "flag"
    CUT = "cut"
    """The text is cut after its last whole sentence or tag; without one it is rejected."""


class Openings(StrEnum):
    """What happens to prose that starts with a phrase about the image: `This image shows ...`."""

    FLAG = "flag"
    REMOVE = "remove"
    """The phrase is removed; if the rest is not a grammatical sentence, the text is rejected."""
    REJECT = "reject"


class Underscores(StrEnum):
    """How the words of a tag are joined."""

    KEEP = "keep"
    UNDERSCORES = "underscores"
    SPACES = "spaces"


class Categories(StrEnum):
    """What happens to `artist:` and the other prefixes of beta-one's tags."""

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


OF_THE_TEXTS = ("lost_fact", "length_ratio", "other_language")
"""Rules that compare a caption with the texts that its prompt has."""


def _first_actions() -> dict[str, Action]:
    return dict.fromkeys(_FIRST_RULES, Action.REJECT)


def _complete(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    if not isinstance(value, dict):
        return value
    # YAML reads a bare `off` as false.
    given = {name: Action.OFF if action is False else action for name, action in value.items()}
    actions: dict[str, Any] = {**_first_actions(), **given}
    return {name: action for name, action in actions.items() if name in _FIRST_RULES or action != Action.OFF}


class TagsConfig(ConfigPart):
    """How tag lists are written. It applies to the tag modes, not to the prompt modes."""

    normalize: bool = True
    """Trim spaces, remove empty and repeated tags, keep the order, join with `, `."""
    underscores: Underscores = Underscores.KEEP
    """How the words of a tag are joined."""
    categories: Categories = Categories.KEEP
    """What happens to `artist:` and the other prefixes of beta-one's tags."""
    vocabulary: str | None = None
    """A local file with one tag a line (the first field of a CSV line). Tags that it lacks are counted and flagged."""

    @model_validator(mode="after")
    def _honoured(self) -> Self:
        if not self.normalize and (self.underscores, self.categories) != (Underscores.KEEP, Categories.KEEP):
            raise ValueError("underscores and categories need normalize: true; allowed with false: keep")
        return self


class RetryConfig(ConfigPart):
    """How a rejected request is retried: on the same replica, with another seed."""

    attempts: int = Field(default=2, ge=0, le=10)
    """Maximum number of retries; 0 keeps the first answer."""
    temperature_add: float = Field(default=0.2, ge=0, le=2)
    """Added to `sampling.temperature` at each retry, up to a temperature of 2."""
    repetition_penalty: float | None = Field(default=None, ge=0.5, le=2)
    """Repetition penalty of every retry; by default `sampling.repetition_penalty`."""


Words = Annotated[tuple[str, ...], AS_LIST]
"""Words or phrases; a single one needs no brackets."""


class KeptConfig(ConfigPart):
    """What a caption must keep of the texts of its prompt: `lost_fact`, `length_ratio` and `other_language`."""

    texts: Words = ()
    """Placeholders of the prompt whose texts the caption is compared with, such as `source.alt`; by default all whose
    text has more than four words."""
    numbers: bool = True
    """`lost_fact`: numbers that the texts write with digits."""
    quotes: bool = True
    """`lost_fact`: quotations of up to eight words in the texts."""
    fields: Words = ()
    """`lost_fact`: placeholders of the prompt all of whose items the caption must mention, such as
    `source.character`."""
    min_ratio: float | None = Field(default=None, ge=0, le=100)
    """`length_ratio`: words of the caption per word of the texts, at least."""
    max_ratio: float | None = Field(default=None, gt=0, le=100)
    """`length_ratio`: words of the caption per word of the texts, at most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_ratio is not None and self.max_ratio is not None and self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio={self.min_ratio:g} is above max_ratio={self.max_ratio:g}")
        return self


class ClipConfig(ConfigPart):
    """The limit of the rule `max_clip_tokens`."""

    max_tokens: int = Field(default=77, ge=3, le=10_000)
    """Tokens of CLIP, its start and end tokens included: 77 is what CLIP's text encoder reads."""
    tokenizer: str | None = None
    """CLIP's tokenizer: a local folder, a `tokenizer.json`, or a hub id such as openai/clip-vit-large-patch14. Without
    it the rule counts words and marks, each of which is at least one token."""


class UserRule(ConfigPart):
    """A rule of the user. It matches a text that meets any of its conditions."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,40}$")
    """Name of the rule, in reasons and flags."""
    modes: Words = ()
    """Modes that the rule applies to; by default all."""
    action: Action = Action.REJECT
    """What the rule does with a text that it matches."""
    pattern: Expression | None = None
    """Matches a text in which this regular expression is found; case-sensitive."""
    min_words: int | None = Field(default=None, ge=1)
    """Matches a text with fewer words."""
    max_words: int | None = Field(default=None, ge=1)
    """Matches a text with more words."""
    forbidden: Words = ()
    """Matches a text that has one of these, as whole words in any case."""
    required: Words = ()
    """Matches a text that lacks one of these."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        conditions = ("pattern", "min_words", "max_words", "forbidden", "required")
        if not any(getattr(self, name) for name in conditions):
            raise ValueError(f"rule {self.name} has no condition; allowed: at least one of {', '.join(conditions)}")
        if self.min_words and self.max_words and self.min_words > self.max_words:
            raise ValueError(f"min_words={self.min_words} is above max_words={self.max_words}")
        return self


class QualityConfig(ConfigPart):
    """Which texts become captions."""

    actions: Annotated[dict[str, Action], BeforeValidator(_complete)] = Field(default_factory=_first_actions)
    """Rule to action. The built-in rules: `loop` (words, sentences, tags, numbered names, one word or one character
    repeated without end), `refusal` (the model refuses to describe the image), `prompt_echo` (the text repeats the
    prompt), `special_tokens` (the text holds special tokens of the model), `wrong_form` (prose where tags were
    requested, or tags where prose was), `foreign_script` (letters of a script that `quality.scripts` does not list),
    `mentions` (the text mentions none of the tags and names that its prompt has from the source row), `lost_fact`,
    `length_ratio` and `other_language` (`quality.kept`), `max_clip_tokens` (`quality.clip`); the last five are off by
    default."""
    truncated: Truncated = Truncated.FLAG
    """What happens to a text that `sampling.max_tokens` cut."""
    openings: Openings = Openings.FLAG
    """What happens to prose that starts with a phrase such as `This image shows`."""
    length_tolerance: float = Field(default=0.3, ge=0, le=1)
    """Relative deviation from the requested number of words above which a row gets the flag too_short or too_long."""
    scripts: tuple[Script, ...] = Field(default=(Script.LATIN,), min_length=1)
    """Writing systems that captions may use."""
    tags: TagsConfig = TagsConfig()
    """How tag lists are written."""
    retry: RetryConfig = RetryConfig()
    """How a rejected request is retried."""
    kept: KeptConfig = added(default=KeptConfig())
    """What a caption must keep of the texts that its prompt has."""
    clip: ClipConfig = added(default=ClipConfig())
    """How long a caption may be for CLIP."""
    rules: tuple[UserRule, ...] = ()
    """Rules of the user, applied after the built-in ones."""

    @model_validator(mode="after")
    def _settings_have_their_rule(self) -> Self:
        for section, rules in (("kept", OF_THE_TEXTS), ("clip", ("max_clip_tokens",))):
            unused = getattr(self, section) != type(self).model_fields[section].default
            if unused and not set(rules) & set(self.actions):
                raise ValueError(f"{section} is set, and no rule uses it; turn one on in actions: {', '.join(rules)}")
        return self

    @field_validator("rules")
    @classmethod
    def _names_once(cls, rules: tuple[UserRule, ...]) -> tuple[UserRule, ...]:
        refuse_repeats("rule names", [rule.name for rule in rules])
        return rules
