"""Keeps glibc from giving each of the driver's threads a heap of its own, each with its own holes.

What the driver has in use hardly grows with the images (57.5 and 57.6 MB by `malloc_info` after 2,000 and 4,700
batches). But Ray starts many threads in it, and glibc gives them up to eight arenas a core: with 16 of them the
free memory between blocks in use grew on (10 to 12 MB), with two it stays at 3.5 MB, at the same rate of batches
(docs/benchmarks.md). Workers are left alone: they may compute in threads.
"""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
"""The main one, and one for the threads: allocation is not where a driver spends its time."""

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""


def limit_arenas() -> None:
    """Limit the arenas of this process, unless MALLOC_ARENA_MAX does; without glibc there are none to limit."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, ARENAS)
