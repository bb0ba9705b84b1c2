"""Retry of single rows: images of a committed shard are captioned again, and its file is replaced once.

The shard's file is read, its failed or rejected rows are requested again, and the file is replaced by a
compare-and-swap on its version. A reader sees the old file or the new one. Of two concurrent retries one replaces the
file; the other finds a new version and replaces nothing.
"""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.ledger.caption_table import concat_rows, identities
from pipeline.ledger.commit import (
    CommitResult,
    checked_footer,
    existing_commit,
    read_all,
    remove_staging,
    result_of,
)
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.ledger.replacement import checked_rows, readable_rows, swap_rows
from pipeline.storage import Store, WriteResult
from schemas.shard import Shard
from schemas.status import Reason, Status

RANK = {Status.SKIPPED: -1, Status.FAILED: 0, Status.REJECTED: 1, Status.OK: 2}
"""A retry keeps the better result: ok > rejected > failed. A row that was asked never becomes skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRows:
    """The images of a committed shard that are captioned again."""

    version: str
    """Of the committed file from which this was read."""
    num_images: int
    """Of the shard."""
    rows: tuple[int, ...]
    """Ascending."""
    statuses: tuple[Status, ...]
    """Caption rows with another status stay as they are."""
    attempts: int
    """The most attempts that any of the rows has had."""
    edited: bool = False
    """Whether rows that a person has edited are among them; by default such rows stay as they are."""
    screened: bool = False
    """Whether the selection decides about them, which were skipped so far; by default they are asked."""


def find_retry_rows(
    store: Store, run: RunIdentity, shard: Shard, statuses: Collection[Status], *, edited: bool = False
) -> RetryRows | None:
    """Return the images of a committed shard with a caption row of one of the statuses; None without any.

    Rows that a person has edited are left out, unless `edited`.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
        StoreError: its captions are not those that were committed.
    """
    path = committed_path(shard.path)
    data, version = store.get_versioned(path)
    footer, _ = checked_footer(store, data, run, shard)
    if not any((footer.statuses or {}).get(status) for status in statuses):
        return None
    table = checked_rows(store, data, footer)
    wanted = [row for row in table.to_pylist() if _is_retried(row, statuses, edited=edited)]
    if not wanted:
        return None
    return RetryRows(
        version=version,
        num_images=footer.num_images,
        rows=tuple(sorted({row["row"] for row in wanted})),
        statuses=tuple(sorted(statuses)),
        attempts=max(row["attempts"] for row in wanted),
        edited=edited,
    )


def find_skipped_rows(
    store: Store, run: RunIdentity, shard: Shard, is_skipped: Callable[[int], bool]
) -> RetryRows | None:
    """Return the images of a committed shard that its selection skipped, and that another one may select.

    Args:
        store: the output.
        run: recipe and slots.
        shard: a committed one.
        is_skipped: whether the other selection skips the image with this number, as far as the number alone says.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
        StoreError: its captions are not those that were committed.
    """
    data, version = store.get_versioned(committed_path(shard.path))
    footer, _ = checked_footer(store, data, run, shard)
    if not (footer.statuses or {}).get(Status.SKIPPED):
        return None
    table = checked_rows(store, data, footer)
    reasons = zip(table["row"].to_pylist(), table["reason"].to_pylist(), strict=True)
    rows = sorted({row for row, reason in reasons if reason in BY_CONDITION and not is_skipped(row)})
    if not rows:
        return None
    return RetryRows(
        version=version,
        num_images=footer.num_images,
        rows=tuple(rows),
        statuses=(Status.SKIPPED,),
        attempts=0,
        screened=True,
    )


BY_CONDITION = frozenset({Reason.FILTERED, Reason.NOT_SAMPLED, Reason.BEYOND_LIMIT})
"""Reasons that another selection may not have."""


def _is_retried(row: Mapping[str, Any], statuses: Collection[Status], *, edited: bool) -> bool:
    return row["status"] in statuses and (edited or row["edited_by"] is None)


def replace_rows(
    store: Store,
    run: RunIdentity,
    shard: Shard,
    retry_rows: RetryRows,
    fragments: Sequence[str],
    attempt: str | None = None,
) -> CommitResult:
    """Merge the fragments of a retry into the shard's committed file, by one compare-and-swap.

    Raises:
        PipelineError: the fragments do not cover all images of the retry.
        StoreError: as `replace_if`; staging is untouched then.
    """
    path = committed_path(shard.path)
    data, version = store.get_versioned(path)
    footer, _ = checked_footer(store, data, run, shard)
    wanted = replace(footer, run=run, attempt=attempt or uuid.uuid4().hex)
    if version != retry_rows.version:
        return existing_commit(store, wanted, shard)
    try:
        fresh = _fresh(store, run, shard, retry_rows, fragments)
    except PipelineError:
        # A fragment may be gone because a faster retry has removed the shard's staging.
        if store.get_versioned(path)[1] != version:
            return existing_commit(store, wanted, shard)
        raise
    old = readable_rows(store, path, data)
    table = merge_rows(old, fresh, run.slots, retry_rows.statuses, edited=retry_rows.edited)
    if retry_rows.screened and table.equals(old):
        # Nothing was newly selected: the file stays as it is.
        remove_staging(store, shard.path)
        return result_of(WriteResult.OURS, footer, table.num_rows, len(data))
    result = swap_rows(store, wanted, table, version)
    if result.outcome is WriteResult.EXISTS:
        return existing_commit(store, wanted, shard)
    remove_staging(store, shard.path)
    return result


def _fresh(store: Store, run: RunIdentity, shard: Shard, retry_rows: RetryRows, fragments: Sequence[str]) -> pa.Table:
    fragments_read = read_all(store, run, shard, retry_rows.num_images, fragments)
    covered = {row for fragment in fragments_read for row in fragment.info.rows.tolist()}
    missing = sorted(set(retry_rows.rows) - covered)
    if missing:
        raise PipelineError(
            f"shard {shard.path}: {len(missing)} images of the retry have no new captions, such as row {missing[0]}; "
            "nothing was replaced. Run the retry again"
        )
    return concat_rows([fragment.table for fragment in fragments_read])


def merge_rows(
    old: pa.Table, fresh: pa.Table, slots: Sequence[str], statuses: Collection[Status], *, edited: bool = False
) -> pa.Table:
    """Return the rows of `old`; those with one of the statuses are replaced where `fresh` has a better result.

    Rows that a person has edited stay as they are, unless `edited`.

    Attempts are added up. Other rows stay as they are, and so does the order. Columns that a later release has added
    keep their values in the rows that stay; in a replaced row they are null, since their new value is unknown.
    """
    again: dict[int, dict[str, Any]] = {}
    for identity, row in zip(identities(fresh, slots).tolist(), fresh.to_pylist(), strict=True):
        again.setdefault(identity, row)
    rows = [
        _better(row, again[identity]) if identity in again and _is_retried(row, statuses, edited=edited) else row
        for identity, row in zip(identities(old, slots).tolist(), old.to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=pa.unify_schemas([old.schema, fresh.schema]))


def _better(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    if new["status"] == Status.SKIPPED == old["status"] and new["reason"] != Reason.DUPLICATE:
        return old
    kept = new if RANK[Status(new["status"])] >= RANK[Status(old["status"])] else old
    return {**kept, "attempts": old["attempts"] + new["attempts"]}
