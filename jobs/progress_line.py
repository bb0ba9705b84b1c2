"""The progress line of a run: updated in place on a terminal; into a log, printed every 30 s and at each new phase."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from pipeline.flow.progress import Snapshot

EVERY_S = 30.0
"""Interval of the lines without a terminal, as in CI."""

STARTING_RAY = "starting Ray or joining its cluster"
"""Shown until the first snapshot: the driver counts nothing before it has a Ray."""


class ProgressLine:
    """Shows snapshots; use it as a context manager."""

    def __init__(self, terminal: TextIO) -> None:
        self._console = Console(file=terminal, soft_wrap=True)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._printed_at = -EVERY_S
        self._phase = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        self._show(STARTING_RAY, STARTING_RAY)
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._show(render(snapshot), starting_phase(snapshot) or "captioning")

    def _show(self, line: str, phase: str) -> None:
        if self._console.is_terminal:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif phase != self._phase or time.monotonic() - self._printed_at >= EVERY_S:
            self._printed_at = time.monotonic()
            self._console.print(line, highlight=False)
        self._phase = phase


def starting_phase(snapshot: Snapshot) -> str | None:
    """Return what the run waits for before its first caption; None once a replica is up or captions exist."""
    if snapshot.replicas or snapshot.captions:
        return None
    if snapshot.replicas_starting:
        return f"loading the model (replicas: {snapshot.replicas_starting})"
    return "waiting for Ray to place a replica and for its process to start"


def render(snapshot: Snapshot) -> str:
    """Return the line, such as `shards 12/30  41.2%  images 3,072  captions 6,144 (58.1/s)  ...  ETA 0:12:40`."""
    phase = starting_phase(snapshot)
    if phase is not None:
        return f"shards {snapshot.shards_done:,}/{snapshot.shards:,}  {phase}  {clock(snapshot.seconds)}"
    share = snapshot.bytes_done / snapshot.bytes_total if snapshot.bytes_total else 1.0
    counts = "  ".join(f"{status} {rows:,}" for status, rows in snapshot.statuses.items())
    eta = clock(snapshot.eta_s) if snapshot.eta_s is not None else "-"
    return (
        f"shards {snapshot.shards_done:,}/{snapshot.shards:,}  {share:.1%} of {size(snapshot.bytes_total)}  "
        f"images {snapshot.images_done:,}  captions {snapshot.captions:,} ({snapshot.captions_per_s:.1f}/s)  "
        f"{counts}  replicas {snapshot.replicas}  {clock(snapshot.seconds)}  ETA {eta}"
    )


def clock(seconds: float) -> str:
    """Return h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def size(num_bytes: float) -> str:
    """Return bytes in the largest unit that gives a number of at least 1."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
