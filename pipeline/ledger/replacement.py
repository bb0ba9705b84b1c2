"""The replacement of a committed shard's file: read with its version, checked, and written by one compare-and-swap.

A reader sees the old file or the new one. Of two concurrent replacements one succeeds; the other finds a new version.
"""

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.ledger.caption_table import digest_mismatch, from_parquet, to_parquet, with_contents
from pipeline.ledger.commit import CommitResult, result_of
from pipeline.ledger.footer import Footer
from pipeline.ledger.layout import committed_path
from pipeline.storage import Store, replace_if


def checked_rows(store: Store, data: bytes, footer: Footer) -> pa.Table:
    """Return the caption rows of a committed file, if they are those that were committed.

    Raises:
        StoreError: they are not: a new digest over damaged rows would make the damage look valid.
    """
    path = committed_path(footer.shard)
    table = readable_rows(store, path, data)
    fault = digest_mismatch(footer, table, footer.run.slots)
    if fault:
        raise StoreError(f"{store.url}/{path}: {fault}; restore the file, or caption into a new output")
    return table


def readable_rows(store: Store, path: str, data: bytes) -> pa.Table:
    """Return the caption rows of a committed file; raises StoreError if it is damaged."""
    try:
        return from_parquet(data)
    except ValueError as err:
        raise StoreError(f"{store.url}/{path}: {err}; restore the file, or caption into a new output") from err


def swap_rows(store: Store, footer: Footer, table: pa.Table, version: str) -> CommitResult:
    """Replace a shard's file that is still of `version`; the result is EXISTS if another was faster.

    `footer` has the attempt id of this write; counts and digest are added here.

    Raises:
        StoreError: as `replace_if`.
    """
    wanted = with_contents(footer, table)
    data = to_parquet(table, wanted)
    outcome = replace_if(store, committed_path(footer.shard), data, version, wanted.attempt)
    return result_of(outcome, wanted, table.num_rows, len(data))
