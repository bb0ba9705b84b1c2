"""Tables and counts as files of the corpus: declared schema, checksums, put if absent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.storage import Store, put_if_absent
from pipeline.storage.parquet import decode_parquet, encode_parquet
from schemas.footer import FooterKey


def parquet_bytes(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Return a Parquet file, zstd, every page with a checksum."""
    return encode_parquet(table, metadata)


def put_table(
    store: Store, path: str, table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a table of this schema, unless the file is there: then it holds the same rows.

    Raises:
        pa.ArrowException: the table is not of the schema, which is a mistake of the caller's.
    """
    attempt = uuid.uuid4().hex
    held = table.cast(schema)
    put_if_absent(store, path, parquet_bytes(held, {**(metadata or {}), str(FooterKey.ATTEMPT): attempt}), attempt)


def read_table(store: Store, path: str, schema: pa.Schema) -> pa.Table:
    """Read a table that `put_table` wrote.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is damaged, or of another schema.
    """
    data = store.get(path)
    try:
        return decode_parquet(data, schema)
    except ValueError as err:
        raise StoreError(
            f"{store.url}/{path}: not what the corpus wrote there ({' '.join(str(err).split())}); "
            "remove it and run again"
        ) from err


def put_json(store: Store, path: str, value: Mapping[str, Any]) -> None:
    """Write counts, unless the file is there."""
    attempt = uuid.uuid4().hex
    put_if_absent(store, path, json.dumps({**value, "attempt": attempt}).encode(), attempt)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Read what `put_json` wrote.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is no JSON object.
    """
    try:
        found = json.loads(store.get(path))
    except ValueError as err:
        raise StoreError(f"{store.url}/{path}: not JSON ({err}); remove it and run again") from err
    if not isinstance(found, dict):
        raise StoreError(f"{store.url}/{path}: not an object of counts; remove it and run again")
    return found
