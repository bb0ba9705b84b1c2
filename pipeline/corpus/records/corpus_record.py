"""A record as the renderer reads it: the fields of `schemas.record` that can appear in a text, one object an image."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Record:
    """The facts about one image. Tags are clean: lower case, no comma, no line end, each once."""

    id: str
    source: str
    general: list[str]
    special: list[str]
    """Tags that count persons."""
    character: list[str]
    copyright: list[str]
    artist: list[str]
    meta: list[str]
    rating: list[str]
    quality: list[str]
    width: int | None
    """px; the aspect ratio is written if width and height are known."""
    height: int | None
    short: str | None
    long: str | None
    """Paragraphs joined by one line end each."""
    title: str | None = None
    """As the source has it; written only with `title_as_short`, and then cleaned."""
    language: str | None = None
    """ISO 639 code; decides how captions are split into sentences, if a library does it."""


_FIELDS = tuple(field.name for field in fields(Record))


def records_of(table: pa.Table) -> Iterator[Record]:
    """Yield the records of a table of `schemas.record.RECORD`, in its order; other columns are ignored."""
    columns = [table[name].to_pylist() for name in _FIELDS]
    for row in zip(*columns, strict=True):
        yield Record(*row)
