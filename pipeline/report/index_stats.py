"""The figures of an index, by DuckDB: formats, sizes, what cannot be read, and clusters of equal and similar images.

Memory is bounded by DuckDB's limit and one file of the index: the rows are streamed into DuckDB, which spills to disk.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.ledger.index_files import Index, iter_rows
from pipeline.storage import Store
from pipeline.storage.duckdb_session import DuckSession, open_duckdb
from pipeline.storage.parquet import encode_parquet
from schemas.index import INDEX_SCHEMA, INDEX_VERSION, IndexKey
from schemas.index_report import INDEX_FORMATS, INDEX_HISTOGRAMS, INDEX_REASONS

FOLDER = "report/index"

_COLUMNS = ("shard", "row", "sha256", "phash", "width", "height", "format", "bytes", "reason")

_MEASURES: Mapping[str, tuple[str, int]] = {
    "long_side": ("greatest(width, height)", 2),
    "short_side": ("least(width, height)", 2),
    "aspect_ratio": ("width / height", 4),
    "bytes": ("nullif(bytes, 0)", 1),
}
"""Name to the SQL of the value, and the number of bins of an octave: the bins begin at powers of two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStats:
    """All figures but the clusters."""

    images: int
    bytes: int
    formats: pa.Table
    reasons: pa.Table
    histograms: pa.Table


def index_stats(index: Index, memory_gib: float) -> IndexStats:
    """Read all rows of an index once.

    Raises:
        ConfigError: DuckDB is not installed.
        PipelineError: DuckDB needs more memory than `memory_gib`.
        OutputMismatch, StoreError: as `read_rows`.
    """
    with open_duckdb(memory_gib) as duck:
        schema = pa.schema([INDEX_SCHEMA.field(name) for name in _COLUMNS])
        duck.load("images", _batches(index), schema)
        images, num_bytes = duck.rows("SELECT count(*), coalesce(sum(bytes), 0)::BIGINT FROM images")[0]
        return IndexStats(
            images=int(images),
            bytes=int(num_bytes),
            formats=duck.table(
                "SELECT format, count(*) AS images, coalesce(sum(bytes), 0)::BIGINT AS bytes FROM images "
                "GROUP BY format ORDER BY images DESC, format",
                INDEX_FORMATS,
            ),
            reasons=duck.table(
                "SELECT reason, count(*) AS images FROM images WHERE reason IS NOT NULL "
                "GROUP BY reason ORDER BY images DESC, reason",
                INDEX_REASONS,
            ),
            histograms=_histograms(duck),
        )


def _batches(index: Index) -> Iterator[pa.RecordBatch]:
    for table in iter_rows(index):
        yield from table.select(list(_COLUMNS)).to_batches()


def _histograms(duck: DuckSession) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for name, (value, per_octave) in _MEASURES.items():
        counted = duck.rows(
            f"SELECT floor(log2({value}) * {per_octave})::INTEGER AS bin, count(*) FROM images "
            f"WHERE {value} IS NOT NULL GROUP BY bin ORDER BY bin"
        )
        rows += [
            {"name": name, "start": 2 ** (place / per_octave), "end": 2 ** ((place + 1) / per_octave), "images": images}
            for place, images in counted
        ]
    return pa.Table.from_pylist(rows, schema=INDEX_HISTOGRAMS)


def write_tables(store: Store, tables: Mapping[str, pa.Table]) -> list[str]:
    """Write the tables of a report, replacing those of an earlier one; return their paths."""
    for name, table in tables.items():
        store.put(f"{FOLDER}/{name}.parquet", encode_parquet(table, {str(IndexKey.INDEX_VERSION): INDEX_VERSION}))
    return [f"{FOLDER}/{name}.parquet" for name in tables]
