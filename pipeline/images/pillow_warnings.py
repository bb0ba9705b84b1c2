"""Suppress Pillow's warnings about unusual files in all threads, so that neither the log nor `-W error` sees them.

`warnings.catch_warnings` alone is not thread-safe (Python before 3.14): the first thread that leaves restores the
filters of the others. Here the first thread that enters sets the filters, and the last one that leaves restores them.
"""

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager


class _Filters:
    """The filter state of the process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.saved = warnings.catch_warnings()


_filters = _Filters()


@contextmanager
def quiet_pillow() -> Generator[None]:
    """Ignore warnings from Pillow: decompression bombs, corrupt EXIF, truncated metadata."""
    with _filters.lock:
        if not _filters.users:
            _filters.saved = warnings.catch_warnings()
            _filters.saved.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _filters.users += 1
    try:
        yield
    finally:
        with _filters.lock:
            _filters.users -= 1
            if not _filters.users:
                _filters.saved.__exit__(None, None, None)
