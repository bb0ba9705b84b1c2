"""Lists the keys of S3 below a prefix, in order, with several requests at a time if there are more than one page.

A page has at most 1,000 keys and names the next one, so a plain listing is one request after the other, each 0.05 to
0.2 s on S3: three minutes for a million keys. `StartAfter` begins a listing at any key. So the rest after the first
page is cut into ranges at the folders below the prefix, or, where files lie side by side, at numbers in their names
(`00999.tar`: at `01`, `02`, ..., `1`, `2`, ...). A range without keys costs one request. The keys of an answer are
compared with the range, so a store that ignores `StartAfter` is slow, not wrong.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T")

Ask = Callable[..., Mapping[str, Any]]
"""Sends a ListObjectsV2 with these parameters, and returns its answer."""

Convert = Callable[[Mapping[str, Any]], T]
"""Makes what is kept of an item of `Contents`. It is called in a thread, so that pages do not wait in memory."""

THREADS = 16
"""Requests at a time. With 0.1 s a request, 160 pages a second: more than botocore parses."""

FOLDER_PAGES = 8
"""Pages of folders that are read to cut the listing: 8,000 folders. What follows is one range."""

MAX_RANGES = 4 * THREADS
"""Folders are of different sizes: with several ranges a thread, none works for long alone."""

NUMBER_DIGITS = 3
"""Digits of a file's name at which a folder of files is cut, each at up to nine places."""


def list_keys(ask: Ask, prefix: str, convert: Convert[T]) -> Iterator[T]:
    """Yield what `convert` makes of each key below a prefix, in the order of the keys.

    Keys that end in a slash are left out: they are a console's folder marks, not files.
    """
    page = ask(Prefix=prefix)
    yield from _converted(page, convert)
    if not page.get("IsTruncated"):
        return
    last = str(page["Contents"][-1]["Key"])
    bounds = _thinned(sorted(bound for bound in _bounds(ask, prefix, last) if bound > last))
    stop = threading.Event()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="list")
    try:
        ranges = deque(
            pool.submit(_range, ask, prefix, (after, before), convert, stop)
            for after, before in pairwise((last, *bounds, None))
            if after is not None
        )
        while ranges:
            yield from ranges.popleft().result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _range(ask: Ask, prefix: str, ends: tuple[str, str | None], convert: Convert[T], stop: threading.Event) -> list[T]:
    """What lies behind the first key, up to the second, or to the end if that is None; less once `stop` is set."""
    after, before = ends
    result: list[T] = []
    following = {"StartAfter": after}
    while not stop.is_set():
        page = ask(Prefix=prefix, **following)
        contents: list[Mapping[str, Any]] = page.get("Contents", [])
        inside = [item for item in contents if item["Key"] > after and (before is None or item["Key"] <= before)]
        result += _converted({"Contents": inside}, convert)
        is_first = "StartAfter" in following
        following = {"ContinuationToken": page.get("NextContinuationToken", "")}
        if not page.get("IsTruncated") or (before is not None and contents and contents[-1]["Key"] > before):
            break
        # A folder of exactly a page is usual (1,000 shards): its end is asked for without another folder's page.
        if is_first and before is not None and _is_past(ask(Prefix=prefix, MaxKeys=1, **following), before):
            break
    return result


def _is_past(page: Mapping[str, Any], before: str) -> bool:
    """Whether the first key of a page lies behind a range."""
    return any(item["Key"] > before for item in page.get("Contents", []))


def _converted(page: Mapping[str, Any], convert: Convert[T]) -> list[T]:
    return [convert(item) for item in page.get("Contents", []) if not item["Key"].endswith("/")]


def _bounds(ask: Ask, prefix: str, last: str) -> Iterable[str]:
    folders: list[str] = []
    following = {"StartAfter": last}
    for _ in range(FOLDER_PAGES):
        page = ask(Prefix=prefix, Delimiter="/", **following)
        on_page = [str(entry["Prefix"]) for entry in page.get("CommonPrefixes", [])]
        folders += on_page
        # A page of files alone is 1,000 of them: to look for folders behind them would be a listing of its own.
        if not page.get("IsTruncated") or not on_page:
            break
        following = {"ContinuationToken": page["NextContinuationToken"]}
    return folders if any(folder > last for folder in folders) else _numbers(last)


def _numbers(last: str) -> Iterator[str]:
    """Names behind the last one with another digit in one place."""
    start = last.rpartition("/")[0]
    places = [place for place in range(len(start), len(last)) if last[place].isdecimal() and last[place].isascii()]
    for place in places[:NUMBER_DIGITS]:
        yield from (f"{last[:place]}{digit}" for digit in range(int(last[place]) + 1, 10))


def _thinned(bounds: list[str]) -> list[str]:
    step = -(-len(bounds) // MAX_RANGES) if bounds else 1
    return bounds[::step]
