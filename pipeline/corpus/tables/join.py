"""Joins one table to all images: each image's row, if there is one, is written to a file of its work unit.

Run by the driver, in DuckDB: the keys of all images are loaded, the table is streamed past them once, and the rows
that match are sorted by work unit. Memory is limited to `memory_gib` for any sizes; the disk holds the keys and the
rows that match.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.corpus_config import JoinConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_table
from pipeline.corpus.tables.identity import join_key
from pipeline.storage import Store
from pipeline.storage.duckdb_session import DuckSession, open_duckdb, split_by_unit
from schemas.image_facts import IMAGE_FACTS

log = logging.getLogger(__name__)

KEYS: pa.Schema = pa.schema(
    [pa.field("row", pa.int32(), nullable=False), pa.field("by", pa.string(), nullable=False), ("key", pa.string())]
)
"""`staging/keys`: the key or null, for each image of a work unit and each kind of key that a join uses."""

JOINED: pa.Schema = pa.schema([pa.field("row", pa.int32(), nullable=False), *IMAGE_FACTS])
"""`staging/joined`: the facts of a table about the image in this row of the work unit."""

_TABLE_ROWS: pa.Schema = pa.schema([("position", pa.int64()), ("join_key", pa.string()), *IMAGE_FACTS])
_IMAGE_KEYS: pa.Schema = pa.schema([("unit", pa.int32()), ("row", pa.int32()), ("key", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class TableJoin:
    """One table and the work units whose images are looked up in it."""

    table: str
    config: JoinConfig
    slices: Sequence[str]
    """Paths of the table's slices, in the table's order."""
    units: Sequence[tuple[int, str]]
    """Number and name of each work unit."""


def join_table(store: Store, join: TableJoin, memory_gib: float) -> None:
    """Write the rows of a table that belong to each work unit. Does nothing if the join is complete."""
    if store.exists(corpus_layout.join_path(join.table)):
        return
    names = dict(join.units)
    with open_duckdb(memory_gib) as duck:
        duck.load("keys", _image_keys(store, join), _IMAGE_KEYS)
        rows = pa.RecordBatchReader.from_batches(_TABLE_ROWS, _table_rows(store, join))
        duck.stream(
            "CREATE TABLE matched AS SELECT unit, row, incoming.* FROM incoming JOIN keys ON keys.key = join_key", rows
        )
        for number, table in split_by_unit(duck.batches(_FIRST)):
            put_table(store, corpus_layout.joined_path(join.table, names[number]), table.select(JOINED.names), JOINED)
        counts = _counts(duck)
    put_json(store, corpus_layout.join_path(join.table), counts)
    log.info("table=%s joined %s", join.table, counts)


# Of several rows with one key the first row of the table is used. The subquery sorts narrow rows only.
_FIRST = """
SELECT matched.* FROM matched
JOIN (SELECT unit, row, min(position) AS position FROM matched GROUP BY unit, row) USING (unit, row, position)
ORDER BY unit, row
"""


def _counts(duck: DuckSession) -> dict[str, int]:
    [(images, rows, twice)] = duck.rows(
        "SELECT count(*), (SELECT count(DISTINCT position) FROM matched), count(*) FILTER (num_rows > 1) "
        "FROM (SELECT count(*) AS num_rows FROM matched GROUP BY unit, row)"
    )
    return {"images_matched": images, "rows_matched": rows, "images_twice": twice}


def _image_keys(store: Store, join: TableJoin) -> Iterator[pa.RecordBatch]:
    for number, unit in join.units:
        keys = read_table(store, corpus_layout.keys_path(unit), KEYS)
        wanted = keys.filter((pc.field("by") == str(join.config.by)) & pc.field("key").is_valid())
        numbers = pa.repeat(pa.scalar(number, pa.int32()), len(wanted))
        yield from pa.table([numbers, wanted["row"], wanted["key"]], schema=_IMAGE_KEYS).to_batches()


def _table_rows(store: Store, join: TableJoin) -> Iterator[pa.RecordBatch]:
    start = 0
    for path in join.slices:
        facts = read_table(store, path, IMAGE_FACTS)
        rows = facts.select(["id", "key", "url", "sha256", "md5"]).to_pylist()
        keys = pa.array([join_key(row, join.config.by) for row in rows], pa.string())
        positions = pa.array(range(start, start + len(rows)), pa.int64())
        start += len(rows)
        table = pa.Table.from_arrays([positions, keys, *facts.columns], schema=_TABLE_ROWS)
        yield from table.combine_chunks().to_batches()
