"""What a rule says of a text, and what it may know of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from schemas.status import Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault in a text."""

    reason: Reason
    rule: str
    """The rule's own name; several may give the same reason."""
    detail: str
    """For people."""

    @property
    def message(self) -> str:
        return f"{self.rule}: {self.detail}"


class JudgedRequest(Protocol):
    """The request, as far as rules go by it: a `pipeline.prompts.Request` has these and more."""

    @property
    def mode(self) -> str: ...
    @property
    def length_kind(self) -> str: ...
    @property
    def length_words(self) -> int | None: ...
    @property
    def length_class(self) -> str | None: ...
    @property
    def prompt(self) -> str: ...
