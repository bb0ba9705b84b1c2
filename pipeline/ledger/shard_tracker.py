"""Counts receipts until all images of a shard are staged. The driver holds this, only for shards in flight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import PipelineError
from schemas.batch import RECEIPT, BatchKind
from schemas.status import no_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A row of schemas.batch.RECEIPT."""

    kind: str
    shard: str
    num_images: int
    """Of the whole shard."""
    fragment: str | None
    rows: Sequence[int] | npt.NDArray[np.int64]
    """Row numbers of the images that the fragment covers."""
    statuses: Mapping[str, int] = field(default_factory=no_rows)
    """Caption rows of the fragment by status."""
    num_taken_over: int = 0
    """Of them, those of an earlier output."""
    num_skipped: int = 0
    """Images of the fragment that the selection skips."""
    message: str | None = None
    traceback: str | None = None
    error: bytes | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the record of a row as Arrow's `to_pylist` gives it."""
        fields: dict[str, Any] = {**row, "statuses": dict(row["statuses"])}
        return cls(**fields)

    def to_table(self) -> pa.Table:
        """Return the record as a table of one row."""
        row = {name: getattr(self, name) for name in RECEIPT.names} | {"statuses": list(self.statuses.items())}
        return pa.Table.from_pylist([row], schema=RECEIPT)


@dataclass(frozen=True, slots=True)
class CompletedShard:
    """A shard with every image in one of its fragments: ready to commit."""

    shard: str
    num_images: int
    fragments: tuple[str, ...]
    """Sorted."""


@dataclass(slots=True)
class _TrackedShard:
    staged: npt.NDArray[np.bool_]
    """By row."""
    fragments: set[str] = field(default_factory=set[str])


class ShardTracker:
    """Counts receipts until a shard is complete.

    Holds one byte per image of the open shards, and the names of the finished ones: a retried task sends receipts of a
    finished shard again, and they must not open it again.
    """

    def __init__(self, wanted: Mapping[str, Sequence[int]] | None = None) -> None:
        """Expect all images of each shard, or only the rows that `wanted` lists for it."""
        self._open: dict[str, _TrackedShard] = {}
        self._finished: set[str] = set()
        self._wanted = wanted or {}

    def add(self, receipt: Receipt) -> CompletedShard | None:
        """Count a receipt; return the shard if this receipt completed it. Rows that come twice are counted once.

        Raises:
            PipelineError: rows outside the shard, or another number of images than in an earlier receipt.
        """
        if receipt.kind == BatchKind.UNREADABLE:
            raise ValueError(f"shard {receipt.shard}: an unreadable shard has no rows to count; call `drop`")
        if receipt.shard in self._finished:
            return None
        tracked = self._open.get(receipt.shard) or self._start(receipt)
        self._open[receipt.shard] = tracked
        rows = _checked(receipt, tracked)
        new_rows = rows[~tracked.staged[rows]]
        tracked.staged[new_rows] = True
        if len(new_rows) and receipt.fragment:
            tracked.fragments.add(receipt.fragment)
        if not tracked.staged.all():
            return None
        self.drop(receipt.shard)
        return CompletedShard(receipt.shard, receipt.num_images, tuple(sorted(tracked.fragments)))

    def _start(self, receipt: Receipt) -> _TrackedShard:
        staged = np.full(receipt.num_images, receipt.shard in self._wanted, dtype=np.bool_)
        staged[list(self._wanted.get(receipt.shard, ()))] = False
        return _TrackedShard(staged)

    def drop(self, shard: str) -> None:
        """Expect nothing more of a shard: it is complete, or goes to quarantine."""
        self._open.pop(shard, None)
        self._finished.add(shard)

    def incomplete(self) -> dict[str, int]:
        """Return the open shards with the number of images that are not staged yet."""
        return {shard: int(np.sum(~tracked.staged)) for shard, tracked in self._open.items()}


def _checked(receipt: Receipt, tracked: _TrackedShard) -> npt.NDArray[np.int64]:
    rows = np.asarray(receipt.rows, dtype=np.int64)
    if receipt.num_images != len(tracked.staged):
        raise PipelineError(
            f"shard {receipt.shard}: receipt for {receipt.num_images} images, earlier receipts for "
            f"{len(tracked.staged)}; the shard changed while it was read. Restore it and run again"
        )
    outside = rows[(rows < 0) | (rows >= receipt.num_images)]
    if len(outside):
        raise PipelineError(
            f"shard {receipt.shard}: receipt with row {outside[0]}; allowed: 0..{receipt.num_images - 1}"
        )
    if len(np.unique(rows)) != len(rows):
        raise PipelineError(f"shard {receipt.shard}: receipt of {receipt.fragment} has a row twice")
    if len(rows) and not receipt.fragment:
        raise PipelineError(f"shard {receipt.shard}: receipt of {len(rows)} rows without a fragment")
    return rows
