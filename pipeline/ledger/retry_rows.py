"""Rows of a committed shard that did not end well, and the one replacement that gives them a second chance.

The shard's file is read, its rows that failed are asked again, and the file is replaced if it is still
the one that was read. A reader sees the old file or the new one; of two retries one is told that it lost.
"""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError, StoreError
from pipeline.ledger.caption_table import contradiction, from_parquet, identities, to_parquet, with_contents
from pipeline.ledger.commit import CommitResult, checked_footer, existing_commit, read_all, remove_staging, result_of
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.storage import Store, WriteResult, replace_if
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from schemas.status import Status

RANK = {Status.FAILED: 0, Status.REJECTED: 1, Status.OK: 2}
"""Success beats failure, and a text that was refused beats none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRows:
    """The images of a committed shard that shall be asked again."""

    version: str
    """Of the file in which they were found."""
    num_images: int
    """Of the shard."""
    rows: tuple[int, ...]
    """Ascending."""
    statuses: tuple[Status, ...]
    """Caption rows of other statuses stay as they are, whatever comes of their image."""
    attempts: int
    """The most that any of their caption rows has had."""


def find_retry_rows(store: Store, run: RunIdentity, shard: Shard, statuses: Collection[Status]) -> RetryRows | None:
    """Return the images of a committed shard with a caption row of one of the statuses; None without any.

    Raises:
        OutputMismatch: the file is not about this shard and this recipe.
        StoreError: its captions are not those that were committed.
    """
    path = committed_path(shard.path)
    data, version = store.get_versioned(path)
    footer, _ = checked_footer(store, data, run, shard)
    if not any((footer.statuses or {}).get(status) for status in statuses):
        return None
    table = from_parquet(data)
    fault = contradiction(footer, table, run.slots)
    if fault:  # the digest of the replacement would make the damage look like what was committed
        raise StoreError(f"{store.url}/{path}: {fault}; restore the file, or caption into a new output")
    wanted = [row for row in table.to_pylist() if row["status"] in statuses]
    return RetryRows(
        version=version,
        num_images=footer.num_images,
        rows=tuple(sorted({row["row"] for row in wanted})),
        statuses=tuple(sorted(statuses)),
        attempts=max(row["attempts"] for row in wanted),
    )


def replace_rows(
    store: Store,
    run: RunIdentity,
    shard: Shard,
    unwell: RetryRows,
    fragments: Sequence[str],
    attempt: str | None = None,
) -> CommitResult:
    """Put what was asked again into the shard's committed file, by one conditional replacement.

    Raises:
        PipelineError: the fragments do not cover the images that were to be asked again.
        StoreError: as `replace_if`; staging is untouched then.
    """
    path = committed_path(shard.path)
    data, version = store.get_versioned(path)
    footer, _ = checked_footer(store, data, run, shard)
    wanted = replace(footer, run=run, attempt=attempt or uuid.uuid4().hex)
    if version != unwell.version:
        return existing_commit(store, wanted, shard)
    try:
        fresh = _fresh(store, run, shard, unwell, fragments)
    except PipelineError:
        # A fragment may be gone because another retry was faster and removed the shard's staging.
        if store.get_versioned(path)[1] != version:
            return existing_commit(store, wanted, shard)
        raise
    table = merge_rows(from_parquet(data), fresh, run.slots, unwell.statuses)
    wanted = with_contents(wanted, table)
    new = to_parquet(table, wanted)
    outcome = replace_if(store, path, new, version, wanted.attempt)
    if outcome is WriteResult.EXISTS:
        return existing_commit(store, wanted, shard)
    remove_staging(store, shard.path)
    return result_of(outcome, wanted, table.num_rows, len(new))


def _fresh(store: Store, run: RunIdentity, shard: Shard, unwell: RetryRows, fragments: Sequence[str]) -> pa.Table:
    read = read_all(store, run, shard, unwell.num_images, fragments)
    covered = {row for fragment in read for row in fragment.facts.rows.tolist()}
    missing = sorted(set(unwell.rows) - covered)
    if missing:
        raise PipelineError(
            f"shard {shard.path}: {len(missing)} images were not asked again, such as row {missing[0]}; retry again"
        )
    return pa.concat_tables([CAPTION_ROW.empty_table(), *(fragment.table for fragment in read)])


def merge_rows(old: pa.Table, fresh: pa.Table, slots: Sequence[str], statuses: Collection[Status]) -> pa.Table:
    """Return the caption rows of `old`, those of the statuses replaced by what is better in `fresh`.

    The attempts of both count. Rows of `old` with other statuses stay, and so does their order.
    """
    again: dict[int, dict[str, Any]] = {}
    for identity, row in zip(identities(fresh, slots).tolist(), fresh.to_pylist(), strict=True):
        again.setdefault(identity, row)
    rows = [
        _better(row, again[identity]) if row["status"] in statuses and identity in again else row
        for identity, row in zip(identities(old, slots).tolist(), old.to_pylist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=CAPTION_ROW)


def _better(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    kept = new if RANK[Status(new["status"])] >= RANK[Status(old["status"])] else old
    return {**kept, "attempts": old["attempts"] + new["attempts"]}
