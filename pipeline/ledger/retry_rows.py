"""Retry of single rows: images of a committed shard are captioned again, and its file is replaced once.

The shard's file is read, its failed, rejected, stale or newly selected rows are requested, and the file is replaced by
a compare-and-swap on its version. A reader sees the old file or the new one. Of two concurrent retries one replaces the
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
from pipeline.ledger.footer import Footer, RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.ledger.replacement import checked_rows, readable_rows, swap_rows
from pipeline.ledger.stale_rows import staleness
from pipeline.ledger.taken_over import TakenOver
from pipeline.storage import Store, WriteResult
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from schemas.status import Reason, Status

RANK = {Status.SKIPPED: -1, Status.FAILED: 0, Status.REJECTED: 1, Status.OK: 2}
"""A retry keeps the better result: ok > rejected > failed. A row that was asked never becomes skipped, unless it was
stale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRows:
    """The images of a committed shard that are captioned again."""

    version: str
    """Of the committed file from which this was read."""
    num_images: int
    """Of the shard."""
    rows: tuple[int, ...]
    """Ascending."""
    identities: frozenset[int]
    """Their caption rows that are requested again, by `caption_table.identities`; all others stay as they are."""
    attempts: int
    """The most attempts that any of the rows has had."""
    keeps_better: bool = True
    """Whether an earlier result that is better stays. A stale row is replaced in any case: its text describes another
    text of the parent."""
    screened: bool = False
    """Whether the selection decides about them again: rows that it has skipped, and stale rows, whose fields have
    changed. By default they are asked."""


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
    return _chosen(footer, table, version, lambda row: row["status"] in statuses, edited=edited)


def find_stale_rows(
    store: Store, run: RunIdentity, shard: Shard, parent: Store, *, edited: bool = False
) -> RetryRows | None:
    """Return the images of a committed shard with a stale caption row (`stale_rows`); None without any.

    Rows that a person has edited are left out, unless `edited`.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
        StoreError: its captions are not those that were committed, or those of the parent cannot be read.
    """
    data, version = store.get_versioned(committed_path(shard.path))
    footer, _ = checked_footer(store, data, run, shard)
    table = checked_rows(store, data, footer)
    is_stale = staleness(parent, shard.path)
    chosen = _chosen(footer, table, version, is_stale, edited=edited)
    return None if chosen is None else replace(chosen, keeps_better=False, screened=True)


def _chosen(
    footer: Footer, table: pa.Table, version: str, is_wanted: Callable[[Mapping[str, Any]], bool], *, edited: bool
) -> RetryRows | None:
    wanted = {
        identity: row
        for identity, row in zip(identities(table, footer.run.slots).tolist(), table.to_pylist(), strict=True)
        if is_wanted(row) and (edited or row["edited_by"] is None)
    }
    if not wanted:
        return None
    return RetryRows(
        version=version,
        num_images=footer.num_images,
        rows=tuple(sorted({row["row"] for row in wanted.values()})),
        identities=frozenset(wanted),
        attempts=max(row["attempts"] for row in wanted.values()),
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
    chosen = _chosen(
        footer, table, version, lambda row: row["reason"] in BY_CONDITION and not is_skipped(row["row"]), edited=False
    )
    return None if chosen is None else replace(chosen, screened=True)


BY_CONDITION = frozenset({Reason.FILTERED, Reason.NOT_SAMPLED, Reason.BEYOND_LIMIT})
"""Reasons that another selection may not have."""


def read_other_rows(store: Store, run: RunIdentity, shard: Shard, retry_rows: RetryRows) -> TakenOver:
    """Read the caption rows of a retry's images that are not requested again, so that none of them is.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
        StoreError: it is damaged.
    """
    path = committed_path(shard.path)
    data = store.get(path)
    checked_footer(store, data, run, shard)
    table = readable_rows(store, path, data).select(CAPTION_ROW.names)
    images = frozenset(retry_rows.rows)
    others: dict[int, list[Mapping[str, Any]]] = {}
    for identity, row in zip(identities(table, run.slots).tolist(), table.to_pylist(), strict=True):
        if row["row"] in images and identity not in retry_rows.identities:
            others.setdefault(row["row"], []).append(row)
    return TakenOver(others)


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
    table = merge_rows(old, fresh, run.slots, retry_rows)
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


def merge_rows(old: pa.Table, fresh: pa.Table, slots: Sequence[str], retry_rows: RetryRows) -> pa.Table:
    """Return the rows of `old`; those of the retry are replaced, or only where `fresh` has a better result.

    Attempts are added up. Other rows stay as they are, and so does the order. Columns that a later release has added
    keep their values in the rows that stay; in a replaced row they are null, since their new value is unknown.
    """
    again: dict[int, dict[str, Any]] = {}
    for identity, row in zip(identities(fresh, slots).tolist(), fresh.to_pylist(), strict=True):
        again.setdefault(identity, row)
    rows = [
        _replaced(row, again[identity], keeps_better=retry_rows.keeps_better)
        if identity in again and identity in retry_rows.identities
        else row
        for identity, row in zip(identities(old, slots).tolist(), old.to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=pa.unify_schemas([old.schema, fresh.schema]))


def _replaced(old: dict[str, Any], new: dict[str, Any], *, keeps_better: bool) -> dict[str, Any]:
    if keeps_better and new["status"] == Status.SKIPPED == old["status"] and new["reason"] in BY_CONDITION:
        return old
    is_better = RANK[Status(new["status"])] >= RANK[Status(old["status"])]
    kept = new if is_better or not keeps_better else old
    return {**kept, "attempts": old["attempts"] + new["attempts"]}
