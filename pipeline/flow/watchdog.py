"""Ends a run that makes no progress, and names the stage that the others wait for."""

from __future__ import annotations

import time
from collections.abc import Hashable

from pipeline.errors import Stalled
from pipeline.flow.progress_actor import Counts


class Watchdog:
    """Compares the progress with that of the previous call."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._progress: Hashable = None
        self._changed_at = time.monotonic()

    def check(self, progress: Hashable, state: str) -> None:
        """Raise Stalled, with this description of the state, when the progress has not changed for the timeout."""
        if progress != self._progress:
            self._progress, self._changed_at = progress, time.monotonic()
        elif time.monotonic() - self._changed_at > self._timeout_s:
            raise Stalled(f"{state}, and nothing moved for {self._timeout_s:g} s")


def stalled_stage(counts: Counts, commits_under_way: int) -> str:
    """Name the stage that the others wait for: the last one that has work."""
    if commits_under_way:
        return f"commit: {commits_under_way} shards wait for the output's storage"
    if counts.staged < counts.asked:
        return f"caption: {counts.asked - counts.staged} images are with the engines and no answer comes"
    if not counts.replicas:
        return "caption: no replica is up; see the worker logs, and whether the cluster has the GPUs asked for"
    if counts.asked < counts.read:
        return f"caption: {counts.read - counts.asked} images were read and no replica takes them"
    return f"read: {counts.read} images were read and no more come from the source"
