"""The progress of a run: counts, rates and the estimated time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.flow.progress_actor import Counts
from pipeline.ledger.shard_tracker import Receipt
from schemas.batch import BatchKind
from schemas.shard import Shard
from schemas.status import Status, no_rows

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob

RATE_WINDOW_S = 60.0
"""Rates are averages of the last minute: since the start, they would include the start of the engines for hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The progress at one time."""

    shards_done: int
    """Committed or in quarantine, earlier runs included."""
    shards: int
    images_done: int
    """Staged in this run, without those that the selection skips."""
    captions: int
    """Caption rows, without skipped ones."""
    captions_per_s: float
    statuses: Mapping[str, int]
    bytes_done: float
    """Bytes of the source in finished shards and in the staged share of open shards, earlier runs included."""
    bytes_total: int
    eta_s: float | None
    """None while the rate is 0."""
    replicas: int
    replicas_starting: int
    """With a running actor whose engine loads the model."""
    seconds: float
    """Since the run started."""
    setups: Mapping[str, int] = field(default_factory=dict[str, int])
    """Number of replicas by what their engine chose for its device."""


Report = Callable[[Snapshot], None]
"""Called with the progress about twice a second."""


@dataclass(kw_only=True)
class Progress:
    """Sums of receipts and finished shards."""

    shards: int
    bytes_total: int
    bytes_before: int
    shards_before: int
    shards_ended: int = 0
    images_resumed: int = 0
    images_done: int = 0
    num_taken_over: int = 0
    """Caption rows of earlier outputs."""
    statuses: dict[str, int] = field(default_factory=no_rows)
    _ended_bytes: int = 0
    _staged_shares: dict[str, float] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _window: deque[tuple[float, int, float]] = field(default_factory=deque)

    @classmethod
    def start(cls, prepared: PreparedJob) -> Progress:
        """Return the progress before the run starts: what earlier runs finished."""
        sizes = {task.shard.path: task.shard.size for task in prepared.tasks}
        planned = prepared.plan.shards.values()
        total = sum(shard.size for shard in planned)
        return cls(
            shards=len(planned),
            bytes_total=total,
            bytes_before=total - sum(sizes.values()),
            shards_before=len(planned) - len(sizes),
            _sizes=sizes,
        )

    def add_receipt(self, receipt: Receipt) -> None:
        """Count a receipt."""
        num_images = len(receipt.rows)
        if receipt.kind == BatchKind.RESUMED:
            self.images_resumed += num_images
        else:
            self.images_done += num_images - receipt.num_skipped
        self.num_taken_over += receipt.num_taken_over
        for status, num_rows in receipt.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + num_rows
        share = num_images / max(1, receipt.num_images)
        self._staged_shares[receipt.shard] = min(1.0, self._staged_shares.get(receipt.shard, 0.0) + share)

    def end_shard(self, shard: Shard) -> None:
        """Count a shard as committed or in quarantine."""
        self.shards_ended += 1
        self._ended_bytes += shard.size
        self._staged_shares.pop(shard.path, None)

    def now(self, counts: Counts) -> Snapshot:
        """Return the progress now, and add it to the window of the rates."""
        staged_bytes = sum(self._sizes[shard] * share for shard, share in self._staged_shares.items())
        bytes_done = self.bytes_before + self._ended_bytes + staged_bytes
        captions = sum(self.statuses.values()) - self.statuses.get(Status.SKIPPED, 0)
        seconds = time.monotonic() - self._started
        per_s, bytes_per_s = self._rates(seconds, captions, bytes_done)
        return Snapshot(
            shards_done=self.shards_before + self.shards_ended,
            shards=self.shards,
            images_done=self.images_done,
            captions=captions,
            captions_per_s=per_s,
            statuses=dict(self.statuses),
            bytes_done=bytes_done,
            bytes_total=self.bytes_total,
            eta_s=(self.bytes_total - bytes_done) / bytes_per_s if bytes_per_s > 0 else None,
            replicas=counts.replicas,
            replicas_starting=counts.replicas_starting,
            seconds=seconds,
            setups=counts.setups,
        )

    def _rates(self, seconds: float, captions: int, bytes_done: float) -> tuple[float, float]:
        self._window.append((seconds, captions, bytes_done))
        while len(self._window) > 2 and seconds - self._window[0][0] > RATE_WINDOW_S:
            self._window.popleft()
        then, captions_then, bytes_then = self._window[0]
        span = seconds - then
        return ((captions - captions_then) / span, (bytes_done - bytes_then) / span) if span > 0 else (0.0, 0.0)
