"""The images of a part with all that their own source says of them: caption rows of an image become one.

A part is what one task makes: a caption file, or a slice of a table.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.corpus_config import CaptionsConfig, FeedConfig
from pipeline.corpus.corpus_files import read_table
from pipeline.corpus.tables.column_mapping import SourceFacts, facts_of
from pipeline.errors import ConfigError, PipelineError, ShardUnreadable
from pipeline.readers import open_local
from pipeline.storage import Store
from schemas.caption_row import CAPTION_ROW
from schemas.image_facts import IMAGE_FACTS
from schemas.shard import Shard
from schemas.status import Status

BATCH_ROWS = 2048
# fmt: off
COLUMNS = ["shard", "row", "key", "slot", "mode", "status", "caption", "image_sha256", "width", "height", "source"]
# fmt: on
CATEGORIES: Mapping[str, str] = {
    "artist": "artist",
    "character": "character",
    "copyright": "copyright",
    "meta": "meta",
    "rating": "rating",
}  # fmt: skip
"""What JoyCaption's tag modes write before a colon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """What one task makes; pickles."""

    name: str
    source: str
    """Name of the config's entry."""
    captions: tuple[Shard, ...] = ()
    """The committed files of one shard, one of each output."""
    slice: str | None = None
    """Path of a slice in the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of a part."""

    row: int
    """In the part, from 0."""
    record_id: str
    facts: SourceFacts


def images_of(part: WorkUnit, entry: CaptionsConfig | None, store: Store, counts: Counter[str]) -> Iterator[Image]:
    """Yield the images of a part in its order, and count what became of their captions.

    Raises:
        PipelineError: a caption file is not what it should be.
    """
    if entry is None:
        yield from _sliced(part, store)
        return
    for row, rows in enumerate(_by_image(part)):
        facts = _facts(rows, entry, counts)
        first = rows[0]
        yield Image(row=row, record_id=f"{part.source}/{first['shard']}#{first['row']}", facts=facts)


def _sliced(part: WorkUnit, store: Store) -> Iterator[Image]:
    rows = read_table(store, part.slice or "", IMAGE_FACTS).to_pylist()
    for row, facts in enumerate(rows):
        known = facts["id"] or facts["key"]
        name = f"{part.source}/{known}" if known else f"{part.name}#{row}"
        yield Image(row=row, record_id=name, facts=facts)


def _by_image(part: WorkUnit) -> Iterator[list[dict[str, Any]]]:
    """Yield the caption rows of each image, those of all outputs together."""
    walks = [_file_images(file) for file in part.captions]
    for images in itertools.zip_longest(*walks):
        if None in images:
            raise PipelineError(f"{part.name}: its files have different numbers of images; caption one source for both")
        if len({(image[0]["row"], image[0]["image_sha256"]) for image in images}) > 1:
            raise PipelineError(
                f"{part.name}: row {images[0][0]['row']} is another image in {part.captions[1].url} than in "
                f"{part.captions[0].url}; outputs that stand together must have captioned one source"
            )
        yield [row for image in images for row in image]


def _file_images(file: Shard) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    for row in _file_rows(file):
        if held and row["row"] != held[0]["row"]:
            yield held
            held = []
        held.append(row)
    if held:
        yield held


def _file_rows(file: Shard) -> Iterator[dict[str, Any]]:
    try:
        with closing(open_local(file)) as opened:
            parquet = pq.ParquetFile(opened)
            missing = sorted(set(CAPTION_ROW.names).difference(parquet.schema_arrow.names))
            if missing:
                raise ConfigError(f"{file.url}: no caption rows, columns {', '.join(missing)} are missing")
            for batch in parquet.iter_batches(BATCH_ROWS, columns=COLUMNS, use_threads=False):
                yield from batch.to_pylist()
    except (ShardUnreadable, pa.ArrowException) as err:
        raise PipelineError(f"captions: {err}") from err


def _facts(rows: Sequence[Mapping[str, Any]], entry: CaptionsConfig, counts: Counter[str]) -> SourceFacts:
    first = rows[0]
    facts = facts_of(json.loads(first["source"]), entry.columns, counts)
    # What the bytes say beats what the source's row says of them.
    own = {"key": first["key"], "sha256": first["image_sha256"], "width": first["width"], "height": first["height"]}
    facts |= {name: value for name, value in own.items() if value is not None}
    for row in rows:
        counts[f"captions_{row['status']}"] += 1
    for field, feeds in (("long", entry.long), ("short", entry.short)):
        texts = _fed(rows, feeds)
        if texts:
            facts[field] = texts[0]
        elif feeds:
            counts[f"without_{field}"] += 1
    for text in _fed(rows, entry.tags):
        _add_tags(facts, text)
    return facts


def _fed(rows: Sequence[Mapping[str, Any]], feeds: Sequence[FeedConfig]) -> list[str]:
    """The captions that feed a field, in the order of the feeds."""
    return [
        row["caption"]
        for feed in feeds
        for row in rows
        if row["slot"] == feed.slot and row["status"] == Status.OK and (not feed.modes or row["mode"] in feed.modes)
    ]


def _add_tags(facts: SourceFacts, text: str) -> None:
    """Add the tags of a tag mode, those with a prefix such as `artist:` to their category."""
    for tag in text.split(","):
        prefix, colon, rest = tag.strip().partition(":")
        kind = CATEGORIES.get(prefix.strip().lower()) if colon else None
        if kind == "rating":
            facts.setdefault("rating", rest.strip())
        else:
            facts[kind or "tags"] = [*(facts.get(kind or "tags") or ()), rest if kind else tag]
