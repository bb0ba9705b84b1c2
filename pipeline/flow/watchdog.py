"""Ends a run that makes no progress, or in which no replica can start, and says why."""

import logging
import time

from pipeline.errors import EngineDead, Stalled
from pipeline.flow.progress_actor import Counts
from pipeline.flow.replica_starts import ReplicaStarts

log = logging.getLogger(__name__)


class Watchdog:
    """Compares the progress with that of the previous call."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._progress: object = None
        self._changed_at = time.monotonic()

    def check(self, progress: object, state: str) -> None:
        """Raise Stalled, with this description of the state, when the progress has not changed for the timeout."""
        if progress != self._progress:
            self._progress, self._changed_at = progress, time.monotonic()
        elif time.monotonic() - self._changed_at > self._timeout_s:
            raise Stalled(f"{state}, and nothing moved for {self._timeout_s:g} s")


class StartMonitor:
    """Reports the failed starts of replicas."""

    def __init__(self) -> None:
        self._num_reported = 0

    def check(self, starts: ReplicaStarts) -> None:
        """Log a failed start once.

        Raises:
            EngineDead: no replica is up, and none can start.
        """
        if starts.hopeless:
            raise EngineDead(f"no replica can start ({starts.failed} starts failed); the last one, {starts.last}")
        if starts.failed > self._num_reported:
            self._num_reported = starts.failed
            log.warning("a replica did not start (failure %d); Ray starts it again. %s", starts.failed, starts.last)


def stalled_stage(counts: Counts, commits_under_way: int) -> str:
    """Name the stage that the others wait for: the last one that has work."""
    if commits_under_way:
        return f"commit: {commits_under_way} shards wait for the output's storage"
    if counts.staged < counts.dispatched:
        return f"caption: {counts.dispatched - counts.staged} images are with the engines and no answer comes"
    if not counts.replicas:
        starts = counts.starts
        failed = f"; {starts.failed} starts failed, the last one, {starts.last}" if starts.failed else ""
        return f"caption: no replica is up; see the worker logs, and whether the cluster has the GPUs asked for{failed}"
    if counts.dispatched < counts.read:
        return f"caption: {counts.read - counts.dispatched} images were read and no replica takes them"
    return f"read: {counts.read} images were read and no more come from the source"
