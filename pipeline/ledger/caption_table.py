"""Caption rows as a table: held to the schema, known by their identities, turned to bytes."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.ledger.footer import Footer, encode_footer
from schemas.caption_row import CAPTION_ROW
from schemas.footer import DIGESTED
from schemas.status import Status

ROW_GROUP_ROWS = 20_000
"""Some 5 to 20 MB of text before compression: one row group for nearly every shard."""

SHOWN = 3
"""Examples in a message."""

Identities = npt.NDArray[np.int64]


def fitted(table: pa.Table, what: str) -> pa.Table:
    """Return the table with exactly the columns and types of CAPTION_ROW.

    Raises:
        PipelineError: a column is missing, unknown, of a type that does not convert, or null where it may not be.
    """
    missing = sorted(set(CAPTION_ROW.names).difference(table.column_names))
    unknown = sorted(set(table.column_names).difference(CAPTION_ROW.names))
    if missing or unknown or len(table.column_names) != len(CAPTION_ROW.names):
        raise PipelineError(f"{what}: columns are not those of a caption row; missing {missing}, unknown {unknown}")
    columns: list[pa.ChunkedArray] = []
    for field in CAPTION_ROW:
        try:
            column = table.column(field.name).cast(field.type)
        except pa.ArrowException as err:
            raise PipelineError(f"{what}: column {field.name} does not convert to {field.type}: {err}") from err
        if column.null_count and not field.nullable:
            raise PipelineError(f"{what}: column {field.name} has {column.null_count} nulls; allowed: none")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=CAPTION_ROW)


def identities(table: pa.Table, slots: Sequence[str]) -> Identities:
    """Return one number per caption row, row x len(slots) + slot; -1 where the slot is none of `slots`."""
    rows = cast("Identities", table.column("row").to_numpy())
    found = pc.call_function("index_in", [table["slot"]], pc.SetLookupOptions(pa.array(list(slots), pa.string())))
    places = cast("Identities", found.fill_null(-1).to_numpy().astype(np.int64))
    return np.where(places < 0, np.int64(-1), rows * len(slots) + places)


def _named(identity: int, slots: Sequence[str]) -> str:
    row, slot = divmod(identity, len(slots))
    return f"({row}, {slots[slot]})"


def examples(found: Identities, slots: Sequence[str]) -> str:
    """The first few of sorted identities, for a message."""
    shown = ", ".join(_named(int(identity), slots) for identity in found[:SHOWN])
    return f"{shown}, ..." if len(found) > SHOWN else shown


def count_statuses(table: pa.Table) -> dict[str, int]:
    """Number of rows by status, zeros included."""
    counts = {str(entry["values"]): int(entry["counts"]) for entry in table["status"].value_counts().to_pylist()}
    return dict.fromkeys(map(str, Status), 0) | counts


def captions_sha256(table: pa.Table, slots: Sequence[str]) -> str:
    """Return the digest of caption rows, whatever their order in the table; `schemas.footer.DIGESTED` defines it."""
    ordered = table.select(list(DIGESTED)).take(pa.array(np.argsort(identities(table, slots), kind="stable")))
    # As bytes: a text of a damaged file may not be UTF-8, which its digest shall tell.
    columns = [ordered[name].cast(pa.string()).cast(pa.binary()).to_pylist() for name in DIGESTED]
    digest = hashlib.sha256()
    for values in zip(*columns, strict=True):
        digest.update(b"".join(b"-," if value is None else b"%d:%b," % (len(value), value) for value in values))
    return digest.hexdigest()


def with_contents(footer: Footer, table: pa.Table) -> Footer:
    """Return the footer of a file to be committed, with what it says of the caption rows in it."""
    return replace(footer, statuses=count_statuses(table), captions_sha256=captions_sha256(table, footer.run.slots))


def contradiction(footer: Footer, table: pa.Table, slots: Sequence[str]) -> str | None:
    """Say that the captions of a committed file are not those that its footer was written for, or None."""
    if footer.captions_sha256 is None:
        return None
    found = captions_sha256(table, slots)
    same = found == footer.captions_sha256
    return None if same else f"captions digest {footer.captions_sha256}, and the rows give {found}"


def to_parquet(table: pa.Table, footer: Footer) -> bytes:
    """Return a Parquet file with `footer` as its metadata, zstd, every page with a checksum."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as writer:
        writer.add_key_value_metadata(encode_footer(footer))
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
    return sink.getvalue().to_pybytes()


def from_parquet(data: bytes) -> pa.Table:
    """Return the caption rows; the footer's keys are not in the schema.

    Raises:
        ValueError: the file is damaged, or its columns are not those of a caption row.
    """
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True, use_threads=False)
        table.validate(full=True)  # texts that are no UTF-8 among others
    except (pa.ArrowException, OSError) as err:
        raise ValueError(f"cannot be read as Parquet ({' '.join(str(err).split())})") from err
    if not table.schema.equals(CAPTION_ROW):
        raise ValueError(f"columns are not those of a caption row: {_difference(table.schema)}")
    return pa.Table.from_arrays(table.columns, schema=CAPTION_ROW)  # without Parquet's field ids


def _difference(schema: pa.Schema) -> str:
    unknown, missing = _not_in(schema, CAPTION_ROW), _not_in(CAPTION_ROW, schema)
    return f"unknown {unknown}, missing {missing}" if unknown or missing else "in another order"


def _not_in(columns: pa.Schema, others: pa.Schema) -> list[str]:
    return [
        f"{field.name}: {field.type}{'' if field.nullable else ' not null'}"
        for field in columns
        if field.name not in others.names or not field.equals(others.field(field.name))
    ]
