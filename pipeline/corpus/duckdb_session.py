"""DuckDB, for what needs all records at once: sorting, joining, comparing. Beyond its memory it uses the disk.

The only module that imports it. Tables come and go as Arrow batches, so that it asks no storage and loads no
extension of its own, and the order of every answer is stated, so that two runs get the same.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError, PipelineError

try:
    import duckdb
except ImportError as err:
    raise ConfigError("corpus: needs DuckDB, which is not installed; run: pip install 'joyfleet[corpus]'") from err

BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What DuckDB may take of the machine."""

    memory_gib: float
    threads: int | None = None
    """By default one per CPU."""


@dataclass(frozen=True, slots=True)
class DuckSession:
    """An open database; its tables end with it."""

    connection: Any

    def take(self, name: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Store batches as the table `name`."""
        self.stream(
            f"CREATE TABLE {name} AS SELECT * FROM incoming", pa.RecordBatchReader.from_batches(schema, batches)
        )

    def stream(self, sql: str, reader: pa.RecordBatchReader) -> None:
        """Change tables by what streams past once under the name `incoming`."""
        self.connection.register("incoming", reader)
        self._run(sql)
        self.connection.unregister("incoming")

    def run(self, sql: str) -> None:
        """Change tables."""
        self._run(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return a small answer."""
        return self._run(sql).fetchall()

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield an answer of any size."""
        yield from self._run(sql).to_arrow_reader(BATCH_ROWS)

    def _run(self, sql: str) -> Any:  # noqa: ANN401 - DuckDB's relation
        try:
            return self.connection.execute(sql)
        except duckdb.OutOfMemoryException as err:
            raise PipelineError(f"DuckDB: {err}; raise memory_gib, or free space in {tempfile.gettempdir()}") from err
        except duckdb.Error as err:
            raise PipelineError(f"DuckDB: {' '.join(str(err).split())}") from err


@contextmanager
def opened(limits: Limits) -> Iterator[DuckSession]:
    """Open a database in a temporary folder, which is gone when the context ends."""
    with tempfile.TemporaryDirectory(prefix="joyfleet-duck-") as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{limits.memory_gib}GiB",
            "temp_directory": f"{folder}/spill",
            # All orders that matter are asked for; kept ones would hold whole tables in memory.
            "preserve_insertion_order": False,
        }
        if limits.threads is not None:
            config["threads"] = limits.threads
        connection = duckdb.connect(f"{folder}/work.duckdb", config=config)
        try:
            yield DuckSession(connection)
        finally:
            connection.close()


def by_part(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Cut an answer that is ordered by its column `part`: yield each part's number and rows."""
    held: list[pa.Table] = []
    number = -1
    for batch in batches:
        table = pa.Table.from_batches([batch])
        parts = table["part"].to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(parts)) + 1), len(parts)] if len(parts) else []
        for start, stop in itertools.pairwise(starts):
            if held and parts[start] != number:
                yield number, pa.concat_tables(held)
                held = []
            number = int(parts[start])
            held.append(table.slice(start, stop - start))
    if held:
        yield number, pa.concat_tables(held)
