"""DuckDB, for steps that need all rows at once: sort, join, compare. Beyond its memory limit it spills to disk.

The only module that imports DuckDB. Tables come and go as Arrow batches, so DuckDB reads no storage and loads no
extension. Every query states the order of its result, so that two runs get the same rows.
"""

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
    raise ConfigError("DuckDB is not installed; run: pip install 'joyfleet[corpus]' or 'joyfleet[index]'") from err

BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class DuckSession:
    """An open database; its tables are gone when it is closed."""

    connection: Any

    def load(self, name: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Store batches as the table `name`."""
        self.stream(
            f"CREATE TABLE {name} AS SELECT * FROM incoming", pa.RecordBatchReader.from_batches(schema, batches)
        )

    def stream(self, sql: str, reader: pa.RecordBatchReader) -> None:
        """Run a statement that reads the reader once, as the table `incoming`."""
        self.connection.register("incoming", reader)
        self.run(sql)
        self.connection.unregister("incoming")

    def run(self, sql: str) -> Any:  # noqa: ANN401 - DuckDB's relation
        """Run a statement."""
        try:
            return self.connection.execute(sql)
        except duckdb.OutOfMemoryException as err:
            raise PipelineError(f"DuckDB: {err}; raise memory_gib, or free space in {tempfile.gettempdir()}") from err
        except duckdb.Error as err:
            raise PipelineError(f"DuckDB: {' '.join(str(err).split())}") from err

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return a small result."""
        return self.run(sql).fetchall()

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield a result of any size."""
        yield from self.run(sql).to_arrow_reader(BATCH_ROWS)

    def table(self, sql: str, schema: pa.Schema) -> pa.Table:
        """Return a result that fits in memory, cast to a schema."""
        tables = [pa.Table.from_batches([batch]).cast(schema) for batch in self.batches(sql)]
        return pa.concat_tables([schema.empty_table(), *tables])


@contextmanager
def open_duckdb(memory_gib: float) -> Iterator[DuckSession]:
    """Open a database in a temporary folder, which is removed when the context ends."""
    with tempfile.TemporaryDirectory(prefix="joyfleet-duck-") as folder:
        config: dict[str, Any] = {
            "memory_limit": f"{memory_gib}GiB",
            "temp_directory": f"{folder}/spill",
            # Every order that matters is in an ORDER BY; insertion order would hold whole tables in memory.
            "preserve_insertion_order": False,
        }
        connection = duckdb.connect(f"{folder}/work.duckdb", config=config)
        try:
            yield DuckSession(connection)
        finally:
            connection.close()


def split_by_unit(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Split a result that is ordered by its column `unit`: yield the number and the rows of each work unit."""
    pending: list[pa.Table] = []
    number = -1
    for batch in batches:
        table = pa.Table.from_batches([batch])
        units = table["unit"].to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(units)) + 1), len(units)] if len(units) else []
        for start, stop in itertools.pairwise(starts):
            if pending and units[start] != number:
                yield number, pa.concat_tables(pending)
                pending = []
            number = int(units[start])
            pending.append(table.slice(start, stop - start))
    if pending:
        yield number, pa.concat_tables(pending)
