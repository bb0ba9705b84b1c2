"""Writes and reads the tables and counts of a corpus: declared schema, page checksums, put-if-absent."""

import json
import uuid
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.storage import Store, put_if_absent
from pipeline.storage.parquet import decode_parquet, encode_parquet
from schemas.footer import FooterKey


def put_table(
    store: Store, path: str, table: pa.Table, schema: pa.Schema, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a table of this schema. A file that exists is left as it is: it holds the same rows.

    Raises:
        pa.ArrowException: the table does not have the schema, which is a bug of the caller.
    """
    attempt = uuid.uuid4().hex
    data = encode_parquet(table.cast(schema), {**(metadata or {}), str(FooterKey.ATTEMPT): attempt})
    put_if_absent(store, path, data, attempt)


def read_table(store: Store, path: str, schema: pa.Schema, removed: Collection[str] = ()) -> pa.Table:
    """Read a table that `put_table` wrote, of this release or an older one with the columns `removed` besides.

    Raises:
        FileNotFoundError: the file does not exist.
        StoreError: the file is damaged, or has another schema.
    """
    data = store.get(path)
    try:
        return decode_parquet(data, schema, removed=removed)
    except ValueError as err:
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
