"""Cuts tables of any format into slices of one format: `SLICE_ROWS` rows of image facts, in the order of the table.

A slice is the input of one task, and joins stream slices. Slicing copies the columns that are needed once; every later
step sees one schema and one size, whatever the format of the table.
"""

import csv
import gzip
import io
import itertools
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.config.corpus_config import Columns, TableConfig
from pipeline.corpus.tables import danbooru
from pipeline.corpus.tables.column_mapping import columns_named, columns_read, facts_of
from pipeline.corpus.tables.tag_scores import ScoreRules, score_rules
from pipeline.errors import ConfigError, PipelineError, ShardUnreadable
from pipeline.readers import STATS_SUFFIX, list_shards, open_local, open_shard, part_file, store_errors
from schemas.image_facts import IMAGE_FACTS
from schemas.shard import Shard
from schemas.status import Reason

_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
"""The end of a key that is the name of a file."""

SLICE_ROWS = 10_000
"""2 to 10 MB of facts and seconds of rendering: small for a worker's memory, large for a storage request."""
BATCH_ROWS = 2048
LARGE_BYTES = 256 << 20
"""A larger Parquet file is sliced by several tasks."""
PART_SLICES = 20
"""Slices of such a task: 200,000 rows, of which it reads the row groups; some 15 s of work."""
WINDOW_BYTES = 8 << 20
"""Of a read from a store, for a part of a file: less than most column chunks of a large file."""

TAR = (".tar", ".tar.gz", ".tgz")
SQLITE = (".sqlite", ".sqlite3", ".db")
LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst")
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".json", ".json.gz", *LINES, *SQLITE, *TAR)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """The input of one slicing task: a file, or the three Parquet files of the danbooru metadata."""

    table: str
    """Name of the config's entry."""
    path: str
    """Of the file, or of the folder of the three files; part of the paths of the slices."""
    files: tuple[Shard, ...]
    columns: Columns
    rules: ScoreRules
    memory_gib: float
    """For DuckDB, which joins the three files."""
    part: tuple[int, int] | None = None
    """Of a large Parquet file, the slices of this task: number of the first, and one past the last."""

    @property
    def read(self) -> frozenset[str]:
        """Names of all columns that may be read."""
        return columns_read(self.columns, self.rules)

    @property
    def named(self) -> frozenset[str]:
        """Names of the columns that the config names."""
        return columns_named(self.columns, self.rules)


def list_tables(config: TableConfig, memory_gib: float) -> list[TableFile]:
    """List the tables at the URLs of an entry.

    Raises:
        ConfigError: no file of a known format is there.
    """
    listed = _without_duplicates(list_shards(SourceConfig(urls=config.urls), SUFFIXES))
    folders: dict[str, list[Shard]] = {}
    for file in listed:
        folders.setdefault(file.path.rpartition("/")[0], []).append(file)
    inputs: list[tuple[str, tuple[Shard, ...]]] = []
    for folder, files in folders.items():
        named = {file.path.rpartition("/")[2]: file for file in files}
        # The folder may also hold the SQLite file and `localpost`: they are the same posts.
        if set(danbooru.PARQUET) <= named.keys():
            path = f"{folder}/danbooru" if folder else "danbooru"
            inputs.append((path, tuple(named[name] for name in danbooru.PARQUET)))
        else:
            inputs += [(file.path, (file,)) for file in files]
    rules = score_rules(config)
    return [
        TableFile(table=config.name, path=path, files=files, columns=config.columns, rules=rules, memory_gib=memory_gib)
        for path, files in sorted(inputs)
    ]


def _without_duplicates(files: Sequence[Shard]) -> list[Shard]:
    """Leave out img2dataset's `00000.tar`, folder `00000` and `_stats.json`: its Parquet has every row."""
    paths = {file.path for file in files}
    stems = {path.removesuffix(".parquet") for path in paths if path.endswith(".parquet")}
    folders = {stem for stem in stems if f"{stem}{STATS_SUFFIX}" in paths}
    return [
        file
        for file in files
        if not (file.path.endswith(".tar") and file.path.removesuffix(".tar") in stems)
        and file.path.rpartition("/")[0] not in folders
        and not file.path.endswith(STATS_SUFFIX)
    ]


def parts_of(table: TableFile) -> list[TableFile]:
    """Return the tasks of a file: itself, or parts of a large Parquet file, whose slices are those of the whole file.

    Raises:
        PipelineError: the file cannot be read.
    """
    first = table.files[0]
    if len(table.files) > 1 or not first.path.lower().endswith(".parquet") or first.size < LARGE_BYTES:
        return [table]
    try:
        with part_file(first, WINDOW_BYTES) as file:
            num_slices = -(-pq.ParquetFile(file).metadata.num_rows // SLICE_ROWS)
    except ShardUnreadable as err:
        raise PipelineError(f"table {table.table}: {err}") from err
    except (pa.ArrowException, *store_errors()) as err:
        raise _unreadable(first.url, err) from err
    starts = range(0, max(1, num_slices), PART_SLICES)
    return [replace(table, part=(start, min(start + PART_SLICES, num_slices))) for start in starts]


def slices(table: TableFile, faults: Counter[str]) -> Iterator[pa.Table]:
    """Yield the facts of a table in its order, `SLICE_ROWS` at a time.

    Raises:
        ConfigError: the table does not have the format that its name says, or lacks a column.
        PipelineError: the table cannot be read.
    """
    with ExitStack() as opened:
        try:
            rows = _rows(table, opened, faults)
            batch = list(itertools.islice(rows, SLICE_ROWS))
            if batch:  # JSON has no list of columns: the first rows show them
                _known_columns(table.files[0].url, table.read, dict.fromkeys(name for row in batch for name in row))
            while batch:
                facts = [facts_of(row, table.columns, faults, table.rules) for row in batch]
                yield pa.Table.from_pylist(facts, schema=IMAGE_FACTS)
                batch = list(itertools.islice(rows, SLICE_ROWS))
        except ShardUnreadable as err:
            raise PipelineError(f"table {table.table}: {err}") from err


def _rows(table: TableFile, opened: ExitStack, faults: Counter[str]) -> Iterator[Row]:
    first = table.files[0]
    name = first.path.lower()
    if table.part:
        file = opened.enter_context(part_file(first, WINDOW_BYTES))
        return _parquet_rows(table, file)
    if name.endswith(TAR):
        return _tar_rows(first, opened, faults)
    files = {file.path.rpartition("/")[2]: opened.enter_context(closing(open_local(file))) for file in table.files}
    if len(files) > 1:
        return danbooru.parquet_posts(f"table {table.table}: {table.path}", files, table.memory_gib)
    file = next(iter(files.values()))
    if name.endswith(SQLITE):
        return danbooru.sqlite_posts(_on_disk(file, opened))
    if name.endswith(".parquet"):
        return _parquet_rows(table, file)
    text = opened.enter_context(
        io.TextIOWrapper(_unpacked(file, name), encoding="utf-8-sig", errors="replace", newline="")
    )
    if name.removesuffix(".gz").endswith((".csv", ".tsv")):
        return _separated_rows(table, text, "\t" if ".tsv" in name else ",")
    return _json_rows(text, name, table.read, faults)


def _tar_rows(shard: Shard, opened: ExitStack, faults: Counter[str]) -> Iterator[Row]:
    # With a limit of 0 bytes no image is read, only the sidecar files.
    tar = opened.enter_context(open_shard(shard, SourceConfig(urls=(shard.url,), metadata_fields=("*",)), 0))
    for row in tar.rows(None):
        damaged = row.reason is Reason.SHARD_DAMAGED  # one row for all rows that are lost
        faults["bad_row"] += damaged or "json_error" in row.metadata
        if not damaged:
            yield {"key": row.key, **row.metadata}


def _on_disk(file: BinaryIO, opened: ExitStack) -> str:
    """Return the path of a local file, or of a temporary copy: SQLite opens paths only."""
    if isinstance(file.name, str) and Path(file.name).exists():
        return file.name
    copy = tempfile.NamedTemporaryFile(prefix="joyfleet-", suffix=".sqlite")  # noqa: SIM115 - closed by `opened`
    opened.enter_context(copy)
    shutil.copyfileobj(file, copy)
    copy.flush()
    return copy.name


def _parquet_rows(table: TableFile, file: BinaryIO) -> Iterator[Row]:
    url = table.files[0].url
    first_row, end_row = (number * SLICE_ROWS for number in table.part or (0, sys.maxsize))
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        names = parquet.schema_arrow.names
        danbooru.refuse_old(url, set(names))
        _refuse_absent(url, table.named, names)
        wanted = _known_columns(url, table.read, names)
        groups, at = _row_groups(parquet.metadata, first_row, end_row)
        for batch in parquet.iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted):
            start, stop = max(0, first_row - at), min(len(batch), end_row - at)
            at += len(batch)
            if start < stop:
                yield from batch.slice(start, stop - start).to_pylist()
    except (pa.ArrowException, *store_errors()) as err:
        raise _unreadable(url, err) from err


def _row_groups(metadata: pq.FileMetaData, first_row: int, end_row: int) -> tuple[list[int], int]:
    """Return the row groups that have rows from `first_row` to before `end_row`, and the number of rows before them."""
    ends = list(itertools.accumulate(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)))
    starts = [0, *ends[:-1]]
    groups = [number for number, end in enumerate(ends) if end > first_row and starts[number] < end_row]
    return groups, starts[groups[0]] if groups else 0


def _unreadable(url: str, err: Exception) -> PipelineError:
    return PipelineError(f"{url}: cannot be read as Parquet ({' '.join(str(err).split())}); restore it")


def _unpacked(file: BinaryIO, name: str) -> BinaryIO:
    if name.endswith(".gz"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if name.endswith(".zst"):
        return cast("BinaryIO", pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd"))
    return file


def _refuse_absent(url: str, named: Collection[str], names: Sequence[str]) -> None:
    """Raise ConfigError if `columns` names a column that the table does not have. JSON has no list of columns."""
    absent = sorted(set(named).difference(names))
    if absent:
        raise ConfigError(f"{url}: `columns` names {', '.join(absent)}; the file has: {', '.join(names)}")


def _known_columns(url: str, known: Collection[str], names: Iterable[str]) -> list[str]:
    """Return the columns that are read; raise ConfigError if the table has none of them."""
    listed = list(names)
    wanted = [name for name in listed if name in known]
    if not wanted:
        raise ConfigError(f"{url}: no known column; found: {', '.join(listed)}; name the columns in `columns`")
    return wanted


def _separated_rows(table: TableFile, text: io.TextIOWrapper, delimiter: str) -> Iterator[Row]:
    url = table.files[0].url
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        if not reader.fieldnames:
            raise ConfigError(f"{url}: no header; the first line must name the columns")
        _refuse_absent(url, table.named, list(reader.fieldnames))
        _known_columns(url, table.read, reader.fieldnames)
        for row in reader:
            if None in row or None in row.values():
                raise PipelineError(
                    f"{url}: line {reader.line_num} does not have the {len(reader.fieldnames)} fields of the header; "
                    "repair the line"
                )
            yield row
    except csv.Error as err:
        raise PipelineError(f"{url}: line {reader.line_num}: {err}") from err


def _json_rows(text: io.TextIOWrapper, name: str, known: frozenset[str], faults: Counter[str]) -> Iterator[Row]:
    """Yield the objects of an array, a single object, or one object a line; anything else is counted and left out.

    A single object without a known key is a mapping from image to row, as taggers and kohya's scripts write it.
    """
    if name.removesuffix(".gz").endswith(".json"):
        data = text.read()
        try:
            value = json.loads(data)
        except ValueError:  # JSON Lines in a file named .json
            yield from _objects(map(_parsed, data.splitlines()), faults)
            return
        if isinstance(value, dict) and known.isdisjoint(value):
            value = _rows_by_key(cast("dict[str, Any]", value), known) or value
        yield from _objects(cast("list[Any]", value) if isinstance(value, list) else [value], faults)
        return
    yield from _objects((_parsed(line) for line in text if line.strip()), faults)


def _rows_by_key(images: Mapping[str, Any], known: frozenset[str]) -> list[Row]:
    """Return a row for each image of a mapping from its key to its row, or to its tags; none for another mapping."""
    values = list(images.values())
    if all(isinstance(value, dict) for value in values):
        if not any(_is_scored(value) or not known.isdisjoint(value) for value in values):
            return []
        return [{"key": key, **({"tags": value} if _is_scored(value) else value)} for key, value in images.items()]
    lists = all(isinstance(value, list) for value in values)
    texts = all(isinstance(value, str) for value in values) and all(map(_FILE.search, images))
    return [{"key": key, "tags": value} for key, value in images.items()] if lists or texts else []


def _is_scored(value: Mapping[str, Any]) -> bool:
    """Whether an object maps tags to confidences."""
    numbers = list(value.values())
    scores = all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers)
    return scores and any(isinstance(number, float) for number in numbers)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _objects(values: Iterable[object], faults: Counter[str]) -> Iterator[Row]:
    for row in values:
        if isinstance(row, dict):
            yield cast("Row", row)
        else:
            faults["bad_row"] += 1
