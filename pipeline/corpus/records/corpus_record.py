"""A record as the renderer takes it: the fields of `schemas.record` that reach a text, one object per image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

_FIELDS = ("id", "source", "general", "special", "character", "copyright", "artist", "meta", "rating", "quality")
_REST = ("width", "height", "short", "long")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one image. Tags are clean: lower case, no comma, no line end, each once."""

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
    """px; the aspect ratio is written where both sides are known."""
    height: int | None
    short: str | None
    long: str | None
    """Paragraphs joined by one line end each."""


def records_of(table: pa.Table) -> Iterator[Record]:
    """Yield the records of a table of `schemas.record.RECORD`, in its order; columns beyond its own are ignored."""
    columns = [table[name].to_pylist() for name in (*_FIELDS, *_REST)]
    for row in zip(*columns, strict=True):
        yield Record(*row)
