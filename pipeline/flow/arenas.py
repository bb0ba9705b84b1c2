"""Keeps glibc from giving each of the driver's threads a heap of its own, each with its own holes.

What the driver has in use does not grow with the images (58 MB by `malloc_info`, first and last). But Ray starts some
fifty threads in it, glibc gives them up to eight arenas a core, and what one thread frees no other one uses:
with 16 arenas the free memory between blocks in use grew on and on, with two it stays at 3 MB, and a batch takes as
long (docs/benchmarks.md, `soak`). Workers are left alone: their memory does not grow, and they may compute in threads.
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
