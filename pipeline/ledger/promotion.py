"""Stand-ins: where the leader of a cluster of duplicates failed, its next follower is captioned in its place.

Nothing else records it: a row that was asked although it has a `duplicate_of` is the stand-in for that row.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.commit import checked_footer
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.ledger.replacement import checked_rows
from pipeline.ledger.retry_rows import RetryRows
from pipeline.storage import Store
from schemas.shard import Shard
from schemas.status import Reason, Status

READERS = 16
"""Committed files read at the same time: they are a few MB each, and most of the time is the latency of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What one committed file says about leaders and followers."""

    shard: str
    version: str
    num_images: int
    failed: frozenset[str]
    """Names of rows with a failed slot, without stand-ins."""
    settled: frozenset[str]
    """Leaders with a stand-in of which no slot failed."""
    followers: pa.Table
    """Columns `row`, `duplicate_of`: rows that are skipped as duplicates, each once."""


def find_stand_ins(
    store: Store, run: RunIdentity, shards: Sequence[Shard], quarantined: Collection[str]
) -> list[tuple[Shard, RetryRows]]:
    """Return the rows to caption in place of leaders that failed: of each such cluster its first skipped follower.

    A leader failed if one of its slots did, or if its shard is in quarantine.

    Args:
        store: the output.
        run: recipe and slots.
        shards: the committed ones, in the order of the plan.
        quarantined: paths of shards in quarantine.

    Raises:
        OutputMismatch: a file belongs to another shard or recipe.
        StoreError: its captions are not those that were committed.
    """
    with ThreadPoolExecutor(READERS) as pool:
        files = list(pool.map(lambda shard: _read(store, run, shard), shards))
    failed: frozenset[str] = frozenset().union(*(file.failed for file in files))
    settled: frozenset[str] = frozenset().union(*(file.settled for file in files))
    rows = _first_followers(files, failed, settled, frozenset(quarantined))
    return [
        (
            shard,
            RetryRows(
                version=file.version,
                num_images=file.num_images,
                rows=tuple(sorted(rows[shard.path])),
                statuses=(Status.SKIPPED,),
                attempts=0,
            ),
        )
        for shard, file in zip(shards, files, strict=True)
        if shard.path in rows
    ]


def _first_followers(
    files: Iterable[_Rows], failed: Collection[str], settled: Collection[str], quarantined: Collection[str]
) -> Mapping[str, list[int]]:
    """By shard, the first skipped follower of each leader that failed and has no stand-in."""
    chosen: dict[str, list[int]] = {}
    replaced: set[str] = set()
    for file in files:
        columns = (file.followers[name].to_pylist() for name in ("row", "duplicate_of"))
        for row, leader in sorted(zip(*columns, strict=True)):
            lost = leader in failed or (bool(quarantined) and leader.rpartition("#")[0] in quarantined)
            if lost and leader not in settled and leader not in replaced:
                replaced.add(leader)
                chosen.setdefault(file.shard, []).append(row)
    return chosen


def _read(store: Store, run: RunIdentity, shard: Shard) -> _Rows:
    data, version = store.get_versioned(committed_path(shard.path))
    footer, _ = checked_footer(store, data, run, shard)
    table = checked_rows(store, data, footer).select(["row", "status", "reason", "duplicate_of"])
    is_failed = pc.call_function("equal", [table["status"], pa.scalar(Status.FAILED.value)])
    is_skipped = pc.call_function("equal", [table["reason"], pa.scalar(Reason.DUPLICATE.value)])
    stands_in = pc.call_function("and_not", [table["duplicate_of"].is_valid(), is_skipped.fill_null(False)])
    asked_instead = table.filter(stands_in)
    failed_rows = set(table.filter(is_failed)["row"].to_pylist())
    leaders = zip(asked_instead["row"].to_pylist(), asked_instead["duplicate_of"].to_pylist(), strict=True)
    return _Rows(
        shard=shard.path,
        version=version,
        num_images=footer.num_images,
        failed=frozenset(f"{shard.path}#{row}" for row in failed_rows - set(asked_instead["row"].to_pylist())),
        settled=frozenset(leader for row, leader in leaders if row not in failed_rows),
        followers=table.filter(is_skipped).group_by(["row", "duplicate_of"]).aggregate([]),
    )
