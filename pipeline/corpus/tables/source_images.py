"""Reads the images of a work unit, each with all facts of its own source: the caption rows of an image become one.

A work unit is the work of one task: a caption file, or a slice of a table.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.corpus_config import CaptionsConfig, FeedConfig
from pipeline.corpus.corpus_files import read_table
from pipeline.corpus.tables.column_mapping import SourceFacts, facts_of
from pipeline.corpus.tables.identity import content_digest
from pipeline.corpus.tables.tag_scores import ScoreRules, score_rules
from pipeline.errors import ConfigError, PipelineError, ShardUnreadable
from pipeline.ledger.leader_captions import with_leader_captions
from pipeline.readers import open_local
from pipeline.storage import Store, open_store
from schemas.caption_row import CAPTION_ROW
from schemas.image_facts import IMAGE_FACTS
from schemas.shard import Shard
from schemas.status import Status

BATCH_ROWS = 2048
# fmt: off
COLUMNS = ["shard", "row", "key", "slot", "mode", "status", "caption", "image_sha256", "width", "height", "source"]
# fmt: on
LED_COLUMNS = ("reason", "message", "duplicate_of", "recipe", "image_bytes", "image_format")
"""Also read to give duplicates the captions of their leaders."""
PREFIXES = frozenset(("artist", "character", "copyright", "meta", "rating"))
"""Fields whose names JoyCaption's tag modes write before a tag, with a colon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """The work of one task; pickles."""

    name: str
    source: str
    """Name of the config's entry."""
    captions: tuple[Shard, ...] = ()
    """The committed files of one shard, one from each output."""
    slice: str | None = None
    """Path of a slice below the corpus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceImage:
    """One image of a work unit."""

    row: int
    """Within the work unit, from 0."""
    record_id: str
    facts: SourceFacts


def images_of(
    unit: WorkUnit, entry: CaptionsConfig | None, store: Store, counts: Counter[str], rules: int
) -> Iterator[SourceImage]:
    """Yield the images of a work unit in its order; count the statuses of their captions.

    Args:
        unit: the work unit.
        entry: of the captions; None for a table.
        store: of the corpus.
        counts: counts the statuses.
        rules: version of the rules, on which the ids of records depend.

    Raises:
        PipelineError: the caption files do not describe the same images, or cannot be read.
    """
    if entry is None:
        yield from _slice_images(unit, store, rules)
        return
    scores = score_rules(entry)
    for row, rows in enumerate(_rows_by_image(unit, entry)):
        facts = _facts(rows, entry, scores, counts)
        first = rows[0]
        yield SourceImage(row=row, record_id=f"{unit.source}/{first['shard']}#{first['row']}", facts=facts)


def _slice_images(unit: WorkUnit, store: Store, rules: int) -> Iterator[SourceImage]:
    rows = read_table(store, unit.slice or "", IMAGE_FACTS).to_pylist()
    for row, facts in enumerate(rows):
        if facts["id"]:
            name = f"{unit.source}/{facts['id']}"
        elif rules > 1:
            name = f"{unit.source}/{facts['key'] or ''}@{content_digest(facts)}"
        else:
            name = f"{unit.source}/{facts['key']}" if facts["key"] else f"{unit.name}#{row}"
        yield SourceImage(row=row, record_id=name, facts=facts)


def _rows_by_image(unit: WorkUnit, entry: CaptionsConfig) -> Iterator[list[dict[str, Any]]]:
    """Yield the caption rows of each image, from all outputs."""
    files = zip(unit.captions, entry.outputs, strict=True)
    read = [_led_images(file, output) if entry.duplicates else _file_images(file) for file, output in files]
    for images in itertools.zip_longest(*read):
        if None in images:
            raise PipelineError(
                f"{unit.name}: the files of its outputs have different numbers of images; give outputs of one source"
            )
        if len({(image[0]["row"], image[0]["image_sha256"]) for image in images}) > 1:
            raise PipelineError(
                f"{unit.name}: row {images[0][0]['row']} is a different image in {unit.captions[1].url} than in "
                f"{unit.captions[0].url}; give outputs of one source"
            )
        yield [row for image in images for row in image]


def _file_images(file: Shard, columns: Sequence[str] = COLUMNS) -> Iterator[list[dict[str, Any]]]:
    for _, rows in itertools.groupby(_file_rows(file, columns), key=itemgetter("row")):
        yield list(rows)


def _led_images(file: Shard, output: str) -> Iterator[list[dict[str, Any]]]:
    """The same; duplicates have the captions of their leaders."""
    store = open_store(output)
    for rows in _file_images(file, (*COLUMNS, *LED_COLUMNS)):
        yield with_leader_captions(store, rows)


def _file_rows(file: Shard, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        with closing(open_local(file)) as opened:
            parquet = pq.ParquetFile(opened)
            missing = sorted(set(CAPTION_ROW.names).difference(parquet.schema_arrow.names))
            if missing:
                raise ConfigError(
                    f"{file.url}: not a file of captions, columns {', '.join(missing)} are missing; "
                    "give outputs of `joyfleet caption`"
                )
            for batch in parquet.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                yield from batch.to_pylist()
    except (ShardUnreadable, pa.ArrowException) as err:
        raise PipelineError(f"captions: {err}") from err


def _facts(
    rows: Sequence[Mapping[str, Any]], entry: CaptionsConfig, scores: ScoreRules, counts: Counter[str]
) -> SourceFacts:
    first = rows[0]
    facts = facts_of(json.loads(first["source"]), entry.columns, counts, scores)
    # Facts that were read from the image override those in the source's row.
    measured = {
        "key": first["key"],
        "sha256": first["image_sha256"],
        "width": first["width"],
        "height": first["height"],
    }
    facts |= {name: value for name, value in measured.items() if value is not None}
    for row in rows:
        counts[f"captions_{row['status']}"] += 1
    for field, feeds in (("long", entry.long), ("short", entry.short)):
        texts = _feed_captions(rows, feeds)
        if texts:
            facts[field] = texts[0]
        elif feeds:
            counts[f"without_{field}"] += 1
    for text in _feed_captions(rows, entry.tags):
        _add_tags(facts, text)
    return facts


def _feed_captions(rows: Sequence[Mapping[str, Any]], feeds: Sequence[FeedConfig]) -> list[str]:
    """Return the captions that feed a field, in the order of the feeds."""
    return [
        row["caption"]
        for feed in feeds
        for row in rows
        if row["slot"] == feed.slot and row["status"] == Status.OK and (not feed.modes or row["mode"] in feed.modes)
    ]


def _add_tags(facts: SourceFacts, text: str) -> None:
    """Add the tags of a tag mode; a tag with a prefix such as `artist:` goes to its category."""
    for tag in text.split(","):
        prefix, colon, rest = tag.strip().partition(":")
        field = prefix.strip().lower()
        if not colon or field not in PREFIXES:
            field, rest = "tags", tag
        if field == "rating":
            facts.setdefault(field, rest.strip())
        else:
            facts[field] = [*(facts.get(field) or ()), rest]
