"""Limits the malloc arenas of the driver, so that its memory does not grow by fragmentation.

The driver's memory in use hardly grows with the images (57.5 and 57.6 MB by `malloc_info` after 2,000 and 4,700
batches). But Ray starts many threads in the driver, and glibc creates up to eight arenas a core for them: with 16
arenas the free memory between blocks in use kept growing (10 to 12 MB), with two it stays at 3.5 MB, at the same rate
of batches (docs/benchmarks.md). Workers keep the default, since they may compute in threads.
"""

import ctypes
import os

NUM_ARENAS = 2
"""The main arena, and one that all threads share: the driver spends little time on allocation."""

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""


def limit_arenas() -> None:
    """Limit the arenas of this process, unless MALLOC_ARENA_MAX is set or the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, NUM_ARENAS)
