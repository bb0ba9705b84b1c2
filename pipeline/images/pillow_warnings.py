"""Pillow's warnings about odd files are kept from the log and from `-W error`, in every thread at once.

`warnings.catch_warnings` alone is not safe with threads (Python before 3.14): the one that leaves
first would restore the filters under the others. Here the first thread in sets them, the last one
out restores them.
"""

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager


class _Filters:
    """The one filter state of the process."""

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
