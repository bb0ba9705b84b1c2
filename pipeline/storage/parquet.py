"""The one door for JoyFleet's own Parquet files: pages with checksums, metadata in the footer, columns read by name.

A schema may gain nullable columns from release to release. So a file is read with the columns of today's schema: one
that an older file lacks is null, one that a newer release has added is ignored, or kept where the file is written
again. Everything else that differs is refused.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_ROWS = 20_000
"""Some 5 to 20 MB of text before compression: one row group for nearly every file."""


def encode_parquet(
    table: pa.Table,
    metadata: Mapping[str, str] | None = None,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
    page_checksums: bool = True,
) -> bytes:
    """Return a Parquet file, zstd, with `metadata` in its footer; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=page_checksums) as writer:
        if metadata:
            writer.add_key_value_metadata(dict(metadata))
        writer.write_table(table, row_group_size=row_group_rows)
    return sink.getvalue().to_pybytes()


def decode_parquet(
    data: bytes, schema: pa.Schema, *, keep_unknown: bool = False, removed: Collection[str] = ()
) -> pa.Table:
    """Return all rows, with the columns of `conform`; `removed` are columns that only older releases write.

    Raises:
        ValueError: the file is damaged, or its columns do not fit the schema.
    """
    try:
        table = _open(data).read(use_threads=False)
        table.validate(full=True)  # finds text that is not UTF-8, among others
    except (pa.ArrowException, OSError) as err:
        raise _unreadable(err) from err
    table = table.drop_columns([name for name in removed if name in table.column_names])
    return conform(table, schema, keep_unknown=keep_unknown)


def iter_parquet(data: bytes, schema: pa.Schema, columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
    """Yield the rows, `batch_rows` at a time, with some of the columns of a schema.

    Raises:
        ValueError: as `decode_parquet`.
    """
    wanted = pa.schema([schema.field(name) for name in columns])
    try:
        for batch in _open(data).iter_batches(batch_rows, columns=list(columns), use_threads=False):
            yield conform(pa.Table.from_batches([batch]), wanted)
    except (pa.ArrowException, OSError) as err:
        raise _unreadable(err) from err


def read_metadata(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """Return the metadata of a file's footer and its number of rows; the pages are not read.

    Raises:
        ValueError: not a whole Parquet file.
    """
    try:
        footer = pq.read_metadata(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as err:
        raise ValueError(f"not a whole Parquet file of {len(data)} bytes ({' '.join(str(err).split())})") from err
    return cast("dict[bytes, bytes]", footer.metadata or {}), footer.num_rows


def conform(table: pa.Table, schema: pa.Schema, *, keep_unknown: bool = False) -> pa.Table:
    """Return the table with the columns of a schema, in its order; nullable columns that it lacks are null.

    Args:
        table: as it was stored.
        schema: of today.
        keep_unknown: nullable columns that the schema does not have follow its own; by default they are left out.

    Raises:
        ValueError: a column that may not be null is missing, has another type, holds nulls, or occurs twice; or an
            unknown column may not be null, so this release does not know what the file means.
    """
    fault = _misfit(table.schema, schema)
    if fault:
        raise ValueError(fault)
    fields = list(schema)
    if keep_unknown:
        fields += [_without_id(field) for field in table.schema if field.name not in schema.names]
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _open(data: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def _unreadable(err: Exception) -> ValueError:
    return ValueError(f"cannot be read as Parquet ({' '.join(str(err).split())})")


def _misfit(stored: pa.Schema, schema: pa.Schema) -> str | None:
    """Say why a stored table does not have the columns of a schema, or None."""
    twice = sorted({name for name in stored.names if stored.names.count(name) > 1})
    if twice:
        return f"columns {twice} occur twice"
    unknown = [_text(field) for field in stored if not _fits(field, schema)]
    missing = [_text(field) for field in schema if not _is_served(field, stored)]
    return f"unknown {unknown}, missing {missing}" if unknown or missing else None


def _fits(stored: pa.Field, schema: pa.Schema) -> bool:
    """Whether a schema takes a stored column, or may ignore it."""
    return (
        _is_served(schema.field(stored.name), pa.schema([stored])) if stored.name in schema.names else stored.nullable
    )


def _is_served(field: pa.Field, stored: pa.Schema) -> bool:
    """Whether a stored table has a column for a field, or the field is null without one."""
    if field.name not in stored.names:
        return field.nullable
    column = stored.field(field.name)
    return column.type.equals(field.type) and (field.nullable or not column.nullable)


def _text(field: pa.Field) -> str:
    return f"{field.name}: {field.type}{'' if field.nullable else ' not null'}"


def _without_id(field: pa.Field) -> pa.Field:
    """The field without the number that Parquet gave it, which may be another column's in the next file."""
    metadata = {key: value for key, value in (field.metadata or {}).items() if key != b"PARQUET:field_id"}
    return field.with_metadata(metadata)
