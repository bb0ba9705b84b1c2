"""Ends a run in which nothing moves or no replica can start, and says why."""

from __future__ import annotations

import logging
import time

from pipeline.errors import EngineDead, Stalled
from pipeline.flow.progress_actor import Counts

log = logging.getLogger(__name__)


class Watchdog:
    """Compares the counts of all stages with those of its last look."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._last: tuple[Counts, int, int] | None = None
        self._moved_at = time.monotonic()
        self._starts_failed = 0

    def look(self, counts: Counts, shards_ended: int, commits_under_way: int) -> None:
        """Report failed starts of replicas.

        Raises:
            EngineDead: no replica is up, and none can start.
            Stalled: no count has changed for the timeout.
        """
        self._report_starts(counts)
        now = (counts, shards_ended, commits_under_way)
        if now != self._last:
            self._last, self._moved_at = now, time.monotonic()
        elif time.monotonic() - self._moved_at > self._timeout_s:
            raise Stalled(f"{stalled_stage(counts, commits_under_way)}, and nothing moved for {self._timeout_s:g} s")

    def _report_starts(self, counts: Counts) -> None:
        starts = counts.starts
        if starts.hopeless:
            raise EngineDead(f"no replica can start ({starts.failed} starts failed); the last one, {starts.last}")
        if starts.failed > self._starts_failed:
            self._starts_failed = starts.failed
            log.warning("a replica did not start (failure %d); Ray starts it again. %s", starts.failed, starts.last)


def stalled_stage(counts: Counts, commits_under_way: int) -> str:
    """Name the stage that holds what the others wait for: the last one that has something to do."""
    if commits_under_way:
        return f"commit: {commits_under_way} shards wait for the output's storage"
    if counts.staged < counts.asked:
        return f"caption: {counts.asked - counts.staged} images are with the engines and no answer comes"
    if not counts.replicas:
        failed = (
            f"; {counts.starts.failed} starts failed, the last one, {counts.starts.last}"
            if counts.starts.failed
            else ""
        )
        return f"caption: no replica is up; see the worker logs, and whether the cluster has the GPUs asked for{failed}"
    if counts.asked < counts.read:
        return f"caption: {counts.read - counts.asked} images were read and no replica takes them"
    return f"read: {counts.read} images were read and no more come from the source"
