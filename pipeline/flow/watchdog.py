"""Ends a run in which nothing moves, and says where it stands still."""

from __future__ import annotations

import time

from pipeline.errors import Stalled
from pipeline.flow.progress_actor import Counts


class Watchdog:
    """Compares the counts of all stages with those of its last look."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._last: tuple[Counts, int, int] | None = None
        self._moved_at = time.monotonic()

    def look(self, counts: Counts, shards_ended: int, commits_under_way: int) -> None:
        """Raise Stalled when no count has changed for the timeout."""
        now = (counts, shards_ended, commits_under_way)
        if now != self._last:
            self._last, self._moved_at = now, time.monotonic()
        elif time.monotonic() - self._moved_at > self._timeout_s:
            raise Stalled(f"{stalled_stage(counts, commits_under_way)}, and nothing moved for {self._timeout_s:g} s")


def stalled_stage(counts: Counts, commits_under_way: int) -> str:
    """Name the stage that holds what the others wait for: the last one that has something to do."""
    if commits_under_way:
        return f"commit: {commits_under_way} shards wait for the output's storage"
    if counts.staged < counts.asked:
        return f"caption: {counts.asked - counts.staged} images are with the engines and no answer comes"
    if not counts.replicas:
        return "caption: no replica is up; see the worker logs, and whether the cluster has the GPUs asked for"
    if counts.asked < counts.read:
        return f"caption: {counts.read - counts.asked} images were read and no replica takes them"
    return f"read: {counts.read} images were read and no more come from the source"
