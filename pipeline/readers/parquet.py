"""The Parquet format: the footer has the number of rows, the images are read a few at a time.

Memory is bounded by the pages, not by the row groups: batches are small and the reader streams.
Writers end a page at 1 MB, but some (pyarrow's default) check only every 1,024 values: with images of
100 KB such a shard takes 330 MB, one with small pages 16 MB, and `read_table` takes the whole shard twice.

A row group that cannot be read costs its own rows only: each becomes a failed row, since the footer has the number of
rows.
"""

import logging
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.arrow_value import dictionary_value, to_python
from pipeline.readers.format import Format, ShardCount
from pipeline.readers.metadata_fields import EVERYTHING, fields_to_json, split_fields
from pipeline.readers.sample_reader import field_names
from pipeline.readers.source_row import JSON, Check, LeftOut, Screen, ShardReader, SourceRow, no_check
from pipeline.readers.transport import check_unchanged, is_local, local_file, part_file, ranged_file
from schemas.shard import Shard
from schemas.status import Reason

log = logging.getLogger(__name__)

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes", "data", "content")
KEY_COLUMNS = ("key", "__key__", "id", "image_id", "filename", "file_name")
DOWNLOAD_COLUMNS = ("status", "error_message")
"""Columns of img2dataset, which keeps a row without an image for each failed download."""

BATCH_ROWS = 16
"""At most 16 images in memory at once; with fewer the reader's own overhead becomes visible."""

BUFFER_BYTES = 1 << 20

HEAD_WINDOW_BYTES = 4 << 20
FOOTER_WINDOW_BYTES = 1 << 16

MANY_ROWS = 1_000_000
"""A footer with more rows than this and than the file has bytes is damaged: that many rows hold no images."""


@dataclass(frozen=True, slots=True)
class _Columns:
    image: str | None
    """None for a table of texts."""
    key: str | None
    metadata: tuple[str, ...]
    """Also those that only decide about a row."""
    download: tuple[str, ...]
    """Columns in which img2dataset says why a download failed."""
    path: str | None = None
    """Of the names of the images, inside the image column, if the keys come from there."""

    def names(self) -> list[str]:
        return list(dict.fromkeys((*filter(None, (self.image, self.key)), *self.metadata, *self.download)))

    def names_without_images(self) -> list[str]:
        return list(dict.fromkeys((*filter(None, (self.key or self.path,)), *self.metadata)))


class ParquetShard:
    """A `ColumnReader` of a Parquet file, which the caller closes."""

    def __init__(
        self, file: BinaryIO, shard: Shard, source: SourceConfig, max_bytes: int, check: Check = no_check
    ) -> None:
        """Read the footer.

        Raises:
            ShardUnreadable: not Parquet, or without the configured columns.
        """
        self._url = shard.url
        self._max_bytes = max_bytes
        self._fields = field_names(source)
        self.check = check
        try:
            self._file = pq.ParquetFile(
                file, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
            self._columns = _columns(self._file.schema_arrow, source, shard.url)
            fault = _contradiction(self._file, shard.size)
        # ValueError: names of columns that are not UTF-8, and numbers beyond what Arrow's Python side takes.
        except (pa.ArrowException, OSError, ValueError, OverflowError) as err:
            raise ShardUnreadable(f"{shard.url}: not a Parquet file that can be read ({err}); restore it") from err
        if fault:
            raise ShardUnreadable(f"{shard.url}: not a Parquet file that can be read ({fault}); restore it")
        self.num_images = int(self._file.metadata.num_rows)

    @property
    def layout(self) -> str:
        """See `ShardReader.layout`."""
        columns = self._columns
        others = [name for name in self._file.schema_arrow.names if name not in (columns.image, columns.key)]
        of_image = "" if columns.image is None else "the image's path, or "
        key = f"column {columns.key}" if columns.key else f"{of_image}the row's number"
        what = "no images" if columns.image is None else f"images in column {columns.image}"
        return f"{what}, keys from {key}; other columns: {', '.join(others) or 'none'}"

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return ()

    @property
    def image_column(self) -> str | None:
        return self._columns.image

    def table(self, rows: Sequence[int]) -> pa.Table:
        """Return the columns of some rows, ascending, as they are stored; other row groups are not read.

        All columns, but of a table of texts those without bytes.

        Raises:
            ShardUnreadable: a row group cannot be read.
        """
        schema = self._file.schema_arrow
        of_texts = [name for name in dict.fromkeys(schema.names) if not _holds_images(schema, name)]
        columns = None if self._columns.image is not None else of_texts
        parts = [schema.empty_table() if columns is None else schema.empty_table().select(columns)]
        start = 0
        try:
            for number in range(self._file.metadata.num_row_groups):
                end = start + int(self._file.metadata.row_group(number).num_rows)
                inside = [row - start for row in rows if start <= row < end]
                if inside:
                    group = self._file.read_row_group(number, columns=columns, use_threads=False)
                    parts.append(group.take(pa.array(inside)))
                start = end
        except (pa.ArrowException, OSError) as err:
            raise ShardUnreadable(f"{self._url}: cannot be read ({err}); restore the shard and retry") from err
        return pa.concat_tables(parts)

    def rows(self, wanted: Container[int] | None, screen: Screen | None = None) -> Iterator[SourceRow]:
        """See `ShardReader.rows`. Row groups without a wanted row are not read.

        With a screen, the columns beside the images are read first. Where they decide about all wanted rows of a row
        group, its images are not read.
        """
        start = 0
        for number in range(self._file.metadata.num_row_groups):
            end = start + int(self._file.metadata.row_group(number).num_rows)
            inside = [row for row in range(start, end) if wanted is None or row in wanted]
            if inside:
                decided = self._screened(number, start, inside, screen) if screen else None
                yield from decided or self._group(number, range(start, end), set(inside), screen)
            start = end
        self.check()

    def _screened(self, number: int, start: int, inside: Sequence[int], screen: Screen) -> list[SourceRow] | None:
        """The wanted rows of a row group, if all of them are decided without their images."""
        decided: list[SourceRow] = []
        try:
            columns = self._without_images(number)
            for row in inside:
                key, fields = columns(row - start)
                answer = screen(row, fields, None)
                if answer is None:
                    return None
                metadata, tested = split_fields(fields, self._fields)
                decided.append(SourceRow(row, str(row) if key is None else key, None, metadata, *answer, tested))
        except (pa.ArrowException, OSError, LookupError):
            return None  # damaged: reading the whole row group says where
        return decided

    def _without_images(self, number: int) -> Callable[[int], tuple[str | None, dict[str, JSON]]]:
        """Key and fields of a row of a row group, by its number in it."""
        columns = self._columns
        names = columns.names_without_images()
        table = self._file.read_row_group(number, columns=names, use_threads=False) if names else None

        def of_row(index: int) -> tuple[str | None, dict[str, JSON]]:
            if table is None:
                return None, {}
            named = columns.key or (columns.image if columns.path else None)
            cell = table.column(named)[index] if named else None
            key = None if cell is None else to_python(cell if columns.key else _path_of(cell))
            fields = fields_to_json({name: to_python(table.column(name)[index]) for name in columns.metadata})
            return None if key is None else str(key), fields

        return of_row

    def _group(self, number: int, numbers: range, wanted: Container[int], screen: Screen | None) -> Iterator[SourceRow]:
        row = numbers.start
        message = f"{self._url}: row group {number} has fewer rows than the footer says"
        batches = self._file.iter_batches(BATCH_ROWS, row_groups=[number], columns=self._columns.names())
        while (batch := self._next(batches)) is not None:
            if isinstance(batch, str):
                message = f"{self._url}: row group {number} cannot be read from row {row} on: {batch}"
                log.warning("%s", message)
                break
            for index in range(min(batch.num_rows, numbers.stop - row)):
                if row in wanted:
                    yield self._row(row, batch, index, screen)
                row += 1
        for lost in range(row, numbers.stop):
            if lost in wanted:
                yield SourceRow(lost, str(lost), None, reason=Reason.SHARD_DAMAGED, message=message)

    @staticmethod
    def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | str | None:
        """The next batch, None after the last, or what is wrong with it: the file is local, so with its content."""
        try:
            return next(batches, None)
        except (pa.ArrowException, OSError) as err:
            return str(err)

    def _row(self, row: int, batch: pa.RecordBatch, index: int, screen: Screen | None) -> SourceRow:
        image = self._columns.image
        data, path = (None, None) if image is None else _cell(batch.column(image)[index])
        key = to_python(batch.column(self._columns.key)[index]) if self._columns.key else path
        key = str(row) if key is None else str(key)
        fields = fields_to_json({name: to_python(batch.column(name)[index]) for name in self._columns.metadata})
        # Without the number of bytes, as `_screened` asks: the answer must not depend on the rows beside this one.
        answer = screen(row, fields, None) if screen else None
        metadata, tested = split_fields(fields, self._fields)
        if answer is not None:
            return SourceRow(row, key, None, metadata, *answer, tested)
        if image is None:
            return SourceRow(row, key, None, metadata, tested=tested)
        if data is None:
            message = f"column {image} is null" + (f", with only a path: {path}" if path else "")
            downloads = ((name, to_python(batch.column(name)[index])) for name in self._columns.download)
            message += "".join(f"; {name}: {value}" for name, value in downloads)
            return SourceRow(row, key, None, metadata, Reason.MISSING_IMAGE, message, tested)
        if data.size > self._max_bytes:
            message = f"{data.size} bytes, more than max_bytes={self._max_bytes}"
            return SourceRow(row, key, None, metadata, Reason.TOO_MANY_BYTES, message, tested)
        return SourceRow(row, key, data.to_pybytes(), metadata, tested=tested)


def _contradiction(file: pq.ParquetFile, size: int) -> str | None:
    """Say which impossible number of rows a damaged footer states, or None: the reader would invent that many rows.

    It does not ask for the metadata of columns: pyarrow 26 aborts the process on some that are damaged.
    """
    metadata = file.metadata
    groups = [int(metadata.row_group(number).num_rows) for number in range(metadata.num_row_groups)]
    if min(groups, default=0) < 0 or sum(groups) != metadata.num_rows:
        return f"its footer says {metadata.num_rows} rows, its row groups {', '.join(map(str, groups[:9]))}"
    return f"{sum(groups)} rows in {size} bytes" if sum(groups) > max(MANY_ROWS, size) else None


def _cell(cell: Any) -> tuple[pa.Buffer | None, str | None]:  # noqa: ANN401 - a scalar, bytes or struct
    """The bytes, not yet copied, and the path beside them."""
    if not isinstance(cell, pa.StructScalar):
        return dictionary_value(cell).as_buffer(), None
    if not cell.is_valid:
        return None, None
    path = to_python(_path_of(cell))
    return dictionary_value(cell["bytes"]).as_buffer(), None if path is None else str(path)


def _path_of(cell: Any) -> Any:  # noqa: ANN401 - a struct scalar
    """Return the image's path as a scalar, null if the row has no path."""
    return cell["path"] if cell.is_valid and "path" in cell else pa.scalar(None, pa.string())


def _columns(schema: pa.Schema, source: SourceConfig, url: str) -> _Columns:
    image = None if source.texts else _image_column(schema, source.image_column, url)
    absent = set(source.optional_fields) - set(schema.names)
    named = tuple(name for name in source.metadata_fields if name != EVERYTHING and name not in absent)
    for name in (*named, *((source.key_column,) if source.key_column else ())):
        if name not in schema.names:
            raise ShardUnreadable(f"{url}: no column {name!r}; found: {', '.join(schema.names)}; correct the config")
    tested = tuple(name for name in source.tested_fields if name in schema.names)
    metadata = tuple(schema.names) if EVERYTHING in source.metadata_fields else tuple(dict.fromkeys((*named, *tested)))
    key = source.key_column or next((name for name in KEY_COLUMNS if _is_key(schema, name)), None)
    metadata = tuple(name for name in metadata if name != image and not _are_bytes(_kind(schema, name)))
    download = DOWNLOAD_COLUMNS if set(DOWNLOAD_COLUMNS) <= set(schema.names) else ()
    kind = None if image is None else _kind(schema, image)
    has_path = kind is not None and pt.is_struct(kind) and any(field.name == "path" for field in kind)
    columns = _Columns(image, key, metadata, download, f"{image}.path" if has_path and key is None else None)
    _refuse_twice(schema.names, columns.names(), url, "columns")
    if kind is not None and pt.is_struct(kind):
        _refuse_twice([field.name for field in kind], ("bytes", "path"), url, f"fields of column {image}")
    return columns


def _refuse_twice(names: Sequence[str], used: Iterable[str], url: str, what: str) -> None:
    """Refuse a name that occurs twice: it is unknown which of the columns is meant."""
    for name in used:
        if names.count(name) > 1:
            raise ShardUnreadable(
                f"{url}: {names.count(name)} {what} have the name {name!r}; write the file again with names that "
                "differ, or set source.image_column, source.key_column and source.metadata_fields to others"
            )


def _image_column(schema: pa.Schema, configured: str | None, url: str) -> str:
    candidates = [name for name in dict.fromkeys(schema.names) if _holds_images(schema, name)]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if configured is not None:
        if configured in candidates:
            return configured
        raise ShardUnreadable(
            f"{url}: image_column={configured} is not a column of bytes; found: {listed}; "
            "a column of URLs is for img2dataset, which downloads them"
        )
    named = [name for name in IMAGE_COLUMNS if name in candidates]
    if named:
        return named[0]
    if len(candidates) == 1:
        return candidates[0]
    raise ShardUnreadable(
        f"{url}: {len(candidates)} columns may hold images; found: {listed}; set source.image_column, "
        "or download a list of URLs with img2dataset first"
    )


def _kind(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of the first column of this name."""
    return schema.field(schema.names.index(name)).type


def _are_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    return (
        pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind) or pt.is_fixed_size_binary(kind)
    )  # fmt: skip


def _holds_images(schema: pa.Schema, name: str) -> bool:
    kind = _kind(schema, name)
    if pt.is_struct(kind):
        return any(field.name == "bytes" and _are_bytes(field.type) for field in kind)
    return _are_bytes(kind)


def _is_key(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = _kind(schema, name)
    kind = kind.value_type if pt.is_dictionary(kind) else kind
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_integer(kind)


@contextmanager
def open_parquet(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    """See `Format.open`."""
    if source.texts and not is_local(url_to_fs(shard.url)[0]):
        # Of a table in a store, the columns of the texts alone are fetched, one request each; `part_file` has compared
        # the etag. Reading ahead would fetch the images between them.
        with part_file(shard, FOOTER_WINDOW_BYTES, ahead=False) as file:
            yield ParquetShard(file, shard, source, max_bytes)
        return
    with local_file(shard) as file:
        yield ParquetShard(file, shard, source, max_bytes, partial(check_unchanged, file, shard))


@contextmanager
def open_parquet_head(
    shard: Shard,
    source: SourceConfig,
    max_bytes: int,
    num_images: int,  # noqa: ARG001 - see `OpenHead`
    fields: Sequence[str],  # noqa: ARG001 - see `OpenHead`
) -> Generator[ShardReader]:
    """Read the footer; then only the row groups of wanted rows are fetched."""
    with ranged_file(shard, HEAD_WINDOW_BYTES, ahead=not source.texts) as file:
        yield ParquetShard(file, shard, source, max_bytes)


def count_parquet(shard: Shard, source: SourceConfig) -> ShardCount:
    """Read the footer alone."""
    with ranged_file(shard, FOOTER_WINDOW_BYTES) as file:
        return ShardCount(ParquetShard(file, shard, source, max_bytes=0).num_images, exact=True)


PARQUET = Format(
    name="parquet",
    suffixes=(".parquet",),
    open=open_parquet,
    open_head=open_parquet_head,
    count=count_parquet,
    has_columns=True,
)
