"""Which shards have all their rows staged: all that the driver counts, and only for shards in flight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from schemas.batch import BatchKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One row of schemas.batch.RECEIPT: `Receipt(**row)`."""

    kind: str
    shard: str
    num_rows: int
    fragment: str | None
    rows: Sequence[int] | npt.NDArray[np.int64]
    ok: int = 0
    rejected: int = 0
    failed: int = 0
    message: str | None = None
    traceback: str | None = None
    error: bytes | None = None


@dataclass(frozen=True, slots=True)
class CompletedShard:
    """A shard whose every row lies in one of its fragments: ready to commit."""

    shard: str
    num_images: int
    fragments: tuple[str, ...]
    """Sorted."""


@dataclass(slots=True)
class _TrackedShard:
    seen: npt.NDArray[np.bool_]
    fragments: set[str] = field(default_factory=set[str])


class ShardTracker:
    """Counts receipts until a shard is complete.

    Holds one byte an image of the open shards, and the names of the finished ones: a retried task
    sends receipts of a finished shard again, which must not open it anew.
    """

    def __init__(self, wanted: Mapping[str, Sequence[int]] | None = None) -> None:
        """Expect all rows of each shard, or only those that `wanted` has of it."""
        self.num_overlaps = 0
        """Rows that came a second time; the commit takes them once."""
        self._open: dict[str, _TrackedShard] = {}
        self._finished: set[str] = set()
        self._wanted = wanted or {}

    def add(self, receipt: Receipt) -> CompletedShard | None:
        """Count a receipt; return the shard if this was the last of it.

        Raises:
            PipelineError: it has rows outside the shard, or another number of rows than receipts before it.
        """
        if receipt.kind == BatchKind.UNREADABLE:
            raise ValueError(f"shard {receipt.shard}: an unreadable shard has no rows to count; `drop` it")
        if receipt.shard in self._finished:
            self.num_overlaps += len(receipt.rows)
            return None
        opened = self._open.get(receipt.shard) or self._opened(receipt)
        self._open[receipt.shard] = opened
        rows = _checked(receipt, opened)
        fresh = rows[~opened.seen[rows]]
        self.num_overlaps += len(rows) - len(fresh)
        opened.seen[fresh] = True
        if len(fresh) and receipt.fragment:
            opened.fragments.add(receipt.fragment)
        if not opened.seen.all():
            return None
        self.drop(receipt.shard)
        return CompletedShard(receipt.shard, receipt.num_rows, tuple(sorted(opened.fragments)))

    def _opened(self, receipt: Receipt) -> _TrackedShard:
        seen = np.full(receipt.num_rows, receipt.shard in self._wanted, dtype=np.bool_)
        seen[list(self._wanted.get(receipt.shard, ()))] = False
        return _TrackedShard(seen)

    def drop(self, shard: str) -> None:
        """Expect nothing more of a shard: it is complete, or goes to quarantine."""
        self._open.pop(shard, None)
        self._finished.add(shard)

    def incomplete(self) -> dict[str, int]:
        """Return the open shards with the number of rows still missing."""
        return {shard: int(np.sum(~opened.seen)) for shard, opened in self._open.items()}


def _checked(receipt: Receipt, opened: _TrackedShard) -> npt.NDArray[np.int64]:
    rows = np.asarray(receipt.rows, dtype=np.int64)
    if receipt.num_rows != len(opened.seen):
        raise PipelineError(
            f"shard {receipt.shard}: {receipt.num_rows} rows says a receipt, {len(opened.seen)} said an earlier one; "
            "the shard changed while it was read"
        )
    outside = rows[(rows < 0) | (rows >= receipt.num_rows)]
    if len(outside):
        raise PipelineError(f"shard {receipt.shard}: receipt with row {outside[0]}; allowed: 0..{receipt.num_rows - 1}")
    if len(np.unique(rows)) != len(rows):
        raise PipelineError(f"shard {receipt.shard}: receipt of {receipt.fragment} names a row twice")
    if len(rows) and not receipt.fragment:
        raise PipelineError(f"shard {receipt.shard}: receipt of {len(rows)} rows without a fragment")
    return rows
