"""Texts with `{source.FIELD}` filled in. A value is put in once and never read as a template again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pipeline.config.prompt_fields_config import PLACEHOLDER
from pipeline.prompts.row_fields import RowFields

_CLOSING = "[\"'”’)\\]]*"
_SENTENCE = re.compile(rf"(?:[^.!?\n]|[.!?](?![.!?]*{_CLOSING}(?:\s|$)))*[.!?]*{_CLOSING}\s*")
"""A sentence with the white space after it. It ends at `.`, `!` or `?` before white space, or at a line end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a prompt has from one field of the source row."""

    field: str
    items: tuple[str, ...]
    start: int
    """Index of its first character in the prompt."""
    end: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A text, and what of it comes from fields."""

    text: str
    given: tuple[Given, ...] = ()
    missing: tuple[str, ...] = ()
    """Fields without a text: their placeholders are still in the text."""

    def __add__(self, other: Filled) -> Filled:
        shift = len(self.text)
        moved = (replace(given, start=given.start + shift, end=given.end + shift) for given in other.given)
        return Filled(self.text + other.text, (*self.given, *moved), (*self.missing, *other.missing))

    def strip(self) -> Filled:
        """Return it without white space at both ends, none of which comes from a field."""
        shift = len(self.text) - len(self.text.lstrip())
        moved = (replace(given, start=given.start - shift, end=given.end - shift) for given in self.given)
        return Filled(self.text.strip(), tuple(moved), self.missing)


def join(parts: Iterable[Filled], joiner: str) -> Filled:
    """Return the parts with a text between two of them."""
    joined = Filled("")
    for number, part in enumerate(parts):
        joined = joined + (Filled(joiner) + part if number else part)
    return joined


def fill(template: str, row: RowFields | None) -> Filled:
    """Put the fields of a row into a template; without a row the placeholders stay."""
    if row is None:
        return Filled(template)
    filled, end = Filled(""), 0
    for match in PLACEHOLDER.finditer(template):
        filled, end = filled + Filled(template[end : match.start()]) + _value(match, row), match.end()
    return filled + Filled(template[end:])


def _value(match: re.Match[str], row: RowFields) -> Filled:
    value = row.of(match[1])
    if value.text is None:
        return Filled(match[0], missing=(match[1],))
    given = Given(field=match[1], items=value.items, start=0, end=len(value.text))
    return Filled(value.text, (given,) if value.items else ())


def is_left_out(part: Filled, row: RowFields | None) -> bool:
    """Whether a sentence or an option is left out: a field has no text, and none of those makes the row fail."""
    return bool(part.missing) and row is not None and all(row.omits(field) for field in part.missing)


def fill_sentences(template: str, row: RowFields) -> Filled:
    """Fill a prompt sentence by sentence, without those that are left out; the rest keeps its white space."""
    parts = [fill(sentence, row) for sentence in sentences(template)]
    kept = [part for part in parts if not is_left_out(part, row)]
    filled = join(kept, "")
    return filled if len(kept) == len(parts) else filled.strip()


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, each with the white space after it: together they are the text."""
    return (match[0] for match in _SENTENCE.finditer(text) if match[0])
