"""Caption rows as a table: checked against the schema, identified by row and slot, encoded and decoded."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError
from pipeline.ledger.footer import Footer, encode_footer
from pipeline.storage.parquet import decode_parquet, encode_parquet
from schemas.caption_row import CAPTION_ROW
from schemas.footer import DIGESTED
from schemas.status import Status, no_rows

SHOWN = 3
"""Examples in a message."""

Identities = npt.NDArray[np.int64]


def check_caption_rows(table: pa.Table, what: str) -> pa.Table:
    """Return rows that are to be written, with exactly the columns and types of CAPTION_ROW.

    Raises:
        PipelineError: a column is missing, unknown, of a type that does not convert, or null where it may not be.
    """
    missing = sorted(set(CAPTION_ROW.names).difference(table.column_names))
    unknown = sorted(set(table.column_names).difference(CAPTION_ROW.names))
    if missing or unknown or len(table.column_names) != len(CAPTION_ROW.names):
        raise PipelineError(f"{what}: not the columns of a caption row; missing {missing}, unknown {unknown}")
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


def concat_rows(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several tables; a column that a later release has added is null where a table lacks it."""
    return pa.concat_tables([CAPTION_ROW.empty_table(), *tables], promote_options="default")


def identities(table: pa.Table, slots: Sequence[str]) -> Identities:
    """Return one number per caption row, row x len(slots) + slot; -1 where the slot is none of `slots`."""
    rows = cast("Identities", table.column("row").to_numpy())
    indices = pc.call_function("index_in", [table["slot"]], pc.SetLookupOptions(pa.array(list(slots), pa.string())))
    places = cast("Identities", indices.fill_null(-1).to_numpy().astype(np.int64))
    return np.where(places < 0, np.int64(-1), rows * len(slots) + places)


def examples(sorted_identities: Identities, slots: Sequence[str]) -> str:
    """The first few identities, for a message."""
    pairs = (divmod(int(identity), len(slots)) for identity in sorted_identities[:SHOWN])
    shown = ", ".join(f"({row}, {slots[slot]})" for row, slot in pairs)
    return f"{shown}, ..." if len(sorted_identities) > SHOWN else shown


def count_statuses(table: pa.Table) -> dict[str, int]:
    """Number of rows by status, zeros included."""
    counts = {str(entry["values"]): int(entry["counts"]) for entry in table["status"].value_counts().to_pylist()}
    return no_rows() | counts


def count_skipped(table: pa.Table) -> dict[str, int]:
    """Number of skipped rows by the condition that skipped them."""
    is_skipped = pc.call_function("equal", [table["status"], pa.scalar(Status.SKIPPED.value)])
    skipped = table.select(["status", "message"]).filter(is_skipped)
    return {str(entry["values"]): int(entry["counts"]) for entry in skipped["message"].value_counts().to_pylist()}


def captions_sha256(table: pa.Table, slots: Sequence[str]) -> str:
    """Return the digest of caption rows, whatever their order in the table; `schemas.footer.DIGESTED` defines it."""
    ordered = table.select(list(DIGESTED)).take(pa.array(np.argsort(identities(table, slots), kind="stable")))
    return rows_sha256(ordered, DIGESTED)


def rows_sha256(table: pa.Table, names: Sequence[str]) -> str:
    """Return the digest of the rows in the order of the table, as `schemas.footer.DIGESTED` says."""
    # As bytes: a text of a damaged file may not be UTF-8, and then its digest must differ, not raise.
    columns = [table[name].cast(pa.string()).cast(pa.binary()).to_pylist() for name in names]
    digest = hashlib.sha256()
    for values in zip(*columns, strict=True):
        digest.update(b"".join(b"-," if value is None else b"%d:%b," % (len(value), value) for value in values))
    return digest.hexdigest()


def with_contents(footer: Footer, table: pa.Table) -> Footer:
    """Return the footer of a file to be committed, with the counts and the digest of its caption rows."""
    return replace(
        footer,
        statuses=count_statuses(table),
        skipped=count_skipped(table) or None,
        captions_sha256=captions_sha256(table, footer.run.slots),
    )


def digest_mismatch(footer: Footer, table: pa.Table, slots: Sequence[str]) -> str | None:
    """Say that the captions of a committed file are not those that its footer was written for, or None."""
    if footer.captions_sha256 is None:
        return None
    actual = captions_sha256(table, slots)
    if actual == footer.captions_sha256:
        return None
    return f"the footer's digest of the captions is {footer.captions_sha256}, that of the rows is {actual}"


def to_parquet(table: pa.Table, footer: Footer) -> bytes:
    """Return a Parquet file with `footer` as its metadata."""
    return encode_parquet(table, encode_footer(footer))


def from_parquet(data: bytes) -> pa.Table:
    """Return the caption rows: the columns of CAPTION_ROW, then nullable ones that a later release has added.

    Who only reads selects columns by name; who writes the rows again keeps all of them.

    Raises:
        ValueError: the file is damaged, or its columns are not those of a caption row.
    """
    return decode_parquet(data, CAPTION_ROW, keep_unknown=True)
