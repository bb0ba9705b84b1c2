"""Runs an iterator in a thread with a lower priority than the rest of its process.

On Linux niceness belongs to a thread. A process that lowers its own cannot raise it again without a privilege, and Ray
may start an engine in a worker that has read shards before.
"""

import os
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def at_niceness(items: Generator[Item], add: int) -> Iterator[Item]:
    """Yield the items, none of which is None, each made in a thread whose niceness is `add` above the caller's.

    Errors pass through. If the caller stops early, the generator is closed in the same thread.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0) + add
    with ThreadPoolExecutor(1, "low-priority", initializer=_set_niceness, initargs=(niceness,)) as thread:
        try:
            while (item := thread.submit(next, items, None).result()) is not None:
                yield item
        finally:
            thread.submit(items.close).result()


def _set_niceness(niceness: int) -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
