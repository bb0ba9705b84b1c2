"""Writes and reads the tables and counts of a corpus: declared schema, page checksums, put-if-absent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.storage import Store, put_if_absent
from schemas.footer import FooterKey

ROW_GROUP_ROWS = 20_000


def parquet_bytes(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Return a Parquet file: zstd, a checksum on every page."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.add_key_value_metadata(dict(metadata))
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return sink.getvalue().to_pybytes()


def put_table(
    store: Store, path: str, table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a table of this schema. A file that exists is left as it is: it holds the same rows.

    Raises:
        pa.ArrowException: the table does not have the schema, which is a bug of the caller.
    """
    attempt = uuid.uuid4().hex
    data = parquet_bytes(table.cast(schema), {**(metadata or {}), str(FooterKey.ATTEMPT): attempt})
    put_if_absent(store, path, data, attempt)


def read_table(store: Store, path: str, schema: pa.Schema) -> pa.Table:
    """Read a table that `put_table` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreError: the file is damaged, or has another schema.
    """
    data = store.get(path)
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
        return table.select(schema.names).cast(schema)
    except (pa.ArrowException, OSError, KeyError) as err:
        raise StoreError(
            f"{store.url}/{path}: damaged, or not a file of this corpus ({' '.join(str(err).split())}); "
            "remove it and run the same command again"
        ) from err


def put_json(store: Store, path: str, value: Mapping[str, Any]) -> None:
    """Write counts. A file that exists is left as it is."""
    attempt = uuid.uuid4().hex
    put_if_absent(store, path, json.dumps({**value, "attempt": attempt}).encode(), attempt)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Read counts that `put_json` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreError: the file is not a JSON object.
    """
    try:
        value = json.loads(store.get(path))
    except ValueError as err:
        raise StoreError(f"{store.url}/{path}: not JSON ({err}); remove it and run the same command again") from err
    if not isinstance(value, dict):
        raise StoreError(
            f"{store.url}/{path}: found JSON {type(value).__name__}, expected an object of counts; "
            "remove it and run the same command again"
        )
    return value
