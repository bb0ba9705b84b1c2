"""One table joined to all images: each image's row, if there is one, lands in a file of its part.

Run by the driver, in DuckDB: keys are held, the table streams past them once, what matches is sorted by part.
Memory is `memory_gib`, whatever the sizes; the disk holds the keys and the rows that match.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.corpus_config import JoinConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_table
from pipeline.corpus.duckdb_session import DuckSession, Limits, by_part, opened
from pipeline.corpus.tables.identity import join_key
from pipeline.storage import Store
from schemas.image_facts import IMAGE_FACTS

log = logging.getLogger(__name__)

KEYS: pa.Schema = pa.schema(
    [pa.field("row", pa.int32(), nullable=False), pa.field("by", pa.string(), nullable=False), ("key", pa.string())]
)
"""`staging/keys`: for each image of a part and each kind of key that some join wants, the key or null."""

JOINED: pa.Schema = pa.schema([pa.field("row", pa.int32(), nullable=False), *IMAGE_FACTS])
"""`staging/joined`: the facts that a table has of the image in this row of the part."""

_PLACED: pa.Schema = pa.schema([("position", pa.int64()), ("join_key", pa.string()), *IMAGE_FACTS])
_HELD: pa.Schema = pa.schema([("part", pa.int32()), ("row", pa.int32()), ("key", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """What is joined."""

    table: str
    config: JoinConfig
    slices: Sequence[str]
    """Paths of the table's slices, in its order."""
    parts: Sequence[tuple[int, str]]
    """Number and name of the parts whose images are looked up."""


def join_table(store: Store, join: Join, limits: Limits) -> None:
    """Write the rows of a table beside the parts that they belong to; does nothing when it was done before."""
    if store.exists(corpus_layout.join_path(join.table)):
        return
    names = dict(join.parts)
    with opened(limits) as duck:
        duck.take("keys", _keys(store, join), _HELD)
        rows = pa.RecordBatchReader.from_batches(_PLACED, _placed(store, join))
        duck.stream(
            "CREATE TABLE matched AS SELECT part, row, incoming.* FROM incoming JOIN keys ON keys.key = join_key", rows
        )
        for number, table in by_part(duck.batches(_FIRST)):
            put_table(store, corpus_layout.joined_path(join.table, names[number]), table.select(JOINED.names), JOINED)
        counts = _counts(duck)
    put_json(store, corpus_layout.join_path(join.table), counts)
    log.info("table=%s joined %s", join.table, counts)


# Of several rows with one key the first of the table stands. The narrow part of the work is done narrow.
_FIRST = """
SELECT matched.* FROM matched
JOIN (SELECT part, row, min(position) AS position FROM matched GROUP BY part, row) USING (part, row, position)
ORDER BY part, row
"""


def _counts(duck: DuckSession) -> dict[str, int]:
    [(images, rows, twice)] = duck.rows(
        "SELECT count(*), (SELECT count(DISTINCT position) FROM matched), count(*) FILTER (found > 1) "
        "FROM (SELECT count(*) AS found FROM matched GROUP BY part, row)"
    )
    return {"images_matched": images, "rows_matched": rows, "images_twice": twice}


def _keys(store: Store, join: Join) -> Iterator[pa.RecordBatch]:
    for number, part in join.parts:
        keys = read_table(store, corpus_layout.keys_path(part), KEYS)
        wanted = keys.filter((pc.field("by") == str(join.config.by)) & pc.field("key").is_valid())
        held = pa.table(
            {"part": pa.repeat(pa.scalar(number, pa.int32()), len(wanted)), "row": wanted["row"], "key": wanted["key"]},
            schema=_HELD,
        )
        yield from held.to_batches()


def _placed(store: Store, join: Join) -> Iterator[pa.RecordBatch]:
    position = 0
    for path in join.slices:
        facts = read_table(store, path, IMAGE_FACTS)
        rows = facts.select(["id", "key", "url", "sha256", "md5"]).to_pylist()
        found = [join_key(row, join.config.by) for row in rows]
        places = pa.array(range(position, position + len(rows)), pa.int64())
        position += len(rows)
        placed = pa.Table.from_arrays([places, pa.array(found, pa.string()), *facts.columns], schema=_PLACED)
        yield from placed.combine_chunks().to_batches()
