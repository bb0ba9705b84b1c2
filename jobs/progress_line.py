"""The progress line of a run: updated in place on a terminal, printed every 30 s into a log."""

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


class ProgressLine:
    """Shows snapshots; use it as a context manager."""

    def __init__(self, terminal: TextIO) -> None:
        self._console = Console(file=terminal, soft_wrap=True)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._printed_at = -EVERY_S

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        line = render(snapshot)
        if self._console.is_terminal:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif time.monotonic() - self._printed_at >= EVERY_S:
            self._printed_at = time.monotonic()
            self._console.print(line, highlight=False)


def render(snapshot: Snapshot) -> str:
    """Return the line, such as `shards 12/30  41.2%  images 3,072  captions 6,144 (58.1/s)  ...  ETA 0:12:40`."""
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
