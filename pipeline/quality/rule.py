"""The record of a quality rule: its name, its default action, and the check that it makes on a text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pipeline.config import Action, QualityConfig
from pipeline.models import Form


class JudgedRequest(Protocol):
    """The parts of a request that rules may use: a `pipeline.prompts.Request` has these and more."""

    @property
    def mode(self) -> str: ...
    @property
    def length_words(self) -> int | None: ...
    @property
    def length_class(self) -> str | None: ...
    @property
    def prompt(self) -> str: ...
    @property
    def given_items(self) -> tuple[str, ...]:
        """The tags, names or texts that the prompt has from the source row."""
        ...

    @property
    def given_texts(self) -> Mapping[str, tuple[str, ...]]:
        """By placeholder of the prompt, such as `source.alt`, the items that stand in its place."""
        ...

    @property
    def schema(self) -> str | None:
        """JSON Schema of the answer; None for a text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedText:
    """A text with everything that a rule may use."""

    text: str
    words: Sequence[str]
    """Lower case, without punctuation."""
    form: Form
    """The form that the mode requests."""
    request: JudgedRequest
    config: QualityConfig
    count_clip_tokens: Callable[[str], int] | None = None
    """With `quality.clip.tokenizer`; see `pipeline.quality.clip_tokens`."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault in a text."""

    check: str
    """The name of the check; a rule may have several."""
    detail: str
    """For people."""

    @property
    def message(self) -> str:
        return f"{self.check}: {self.detail}"


class WithinJson(StrEnum):
    """What a rule checks of a JSON caption."""

    NOTHING = "nothing"
    ALL = "all"
    """All texts among its values, one a line, as one text."""
    EACH = "each"
    """Each text among its values alone: the values of a list may be equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of `quality.actions`."""

    name: str
    """The key in `quality.actions`, and the reason or the flag of a row."""
    default: Action
    """Off for a rule that is added to a released version: otherwise it would change captions under old recipes."""
    check: Callable[[CheckedText], Finding | None]
    within_json: WithinJson = WithinJson.NOTHING
    """What it checks of a JSON caption."""
    check_config: Callable[[QualityConfig], None] = lambda _: None
    """Raises ConfigError if the rule is on and lacks a setting or a library."""
