"""How far a run is, for people: counts, rate and the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.flow.progress_actor import Counts
from pipeline.ledger.shard_tracker import Receipt
from schemas.batch import BatchKind
from schemas.shard import Shard
from schemas.status import no_rows

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob

RATE_WINDOW_S = 60.0
"""Rates are those of the last minute: an average since the start would carry the engines' start for hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One moment of a run."""

    shards_done: int
    """Committed or in quarantine, earlier runs included."""
    shards: int
    images_done: int
    """Staged in this run."""
    captions: int
    captions_per_s: float
    statuses: Mapping[str, int]
    bytes_done: float
    """Of the source, by shards and parts of shards, earlier runs included."""
    bytes_total: int
    eta_s: float | None
    """None until there is a rate."""
    replicas: int
    seconds: float
    setups: Mapping[str, int] = field(default_factory=dict[str, int])
    """Number of replicas by what their engine chose for its device."""


@dataclass(kw_only=True)
class Progress:
    """Adds up receipts and commits."""

    shards: int
    bytes_total: int
    bytes_before: int
    shards_before: int
    num_slots: int
    shards_ended: int = 0
    images_resumed: int = 0
    images_done: int = 0
    statuses: dict[str, int] = field(default_factory=no_rows)
    _ended_bytes: int = 0
    _parts: dict[str, float] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _window: deque[tuple[float, int, float]] = field(default_factory=deque)

    @classmethod
    def start(cls, prepared: PreparedJob) -> Progress:
        """Start from what the output holds already."""
        todo = {work.shard.path: work.shard.size for work in prepared.works}
        planned = prepared.plan.shards.values()
        total = sum(shard.size for shard in planned)
        return cls(
            shards=len(planned),
            bytes_total=total,
            bytes_before=total - sum(todo.values()),
            shards_before=len(planned) - len(todo),
            num_slots=len(prepared.run_facts.slots),
            _sizes=todo,
        )

    def add_receipt(self, receipt: Receipt) -> None:
        """Count a receipt."""
        num_images = len(receipt.rows)
        if receipt.kind == BatchKind.RESUMED:
            self.images_resumed += num_images
        else:
            self.images_done += num_images
        for status, num_rows in receipt.statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + num_rows
        part = num_images / max(1, receipt.num_images)
        self._parts[receipt.shard] = min(1.0, self._parts.get(receipt.shard, 0.0) + part)

    def end_shard(self, shard: Shard) -> None:
        """Count a shard as committed or in quarantine."""
        self.shards_ended += 1
        self._ended_bytes += shard.size
        self._parts.pop(shard.path, None)

    def now(self, counts: Counts) -> Snapshot:
        """Return this moment."""
        parts = sum(self._sizes[shard] * part for shard, part in self._parts.items())
        bytes_done = self.bytes_before + self._ended_bytes + parts
        captions = sum(self.statuses.values())
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
