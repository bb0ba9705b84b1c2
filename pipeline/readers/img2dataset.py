"""Reads img2dataset's own counts of failed downloads, which its tars and folders do not contain."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from pipeline.readers.transport import store_errors

MAX_STATS = 1000
"""Files that are read, 3 s on S3; a data set of 10 M images has so many. Only the first of more files are counted."""

READERS = 16


@dataclass(frozen=True, slots=True)
class Downloads:
    """Sums of the `<shard>_stats.json` files."""

    files: int
    requested: int
    downloaded: int
    reasons: tuple[tuple[str, int], ...]
    """Why the others failed, the most frequent first."""
    unreadable: int
    """Files that cannot be parsed."""


@dataclass(frozen=True, slots=True)
class _Stats:
    count: int
    successes: int
    reasons: dict[str, int]


def downloads(stats: Sequence[str], url: str) -> Downloads:
    """Add up img2dataset's counts, of at most `MAX_STATS` files in the store of `url`."""
    fs, _ = url_to_fs(url)
    with ThreadPoolExecutor(READERS) as pool:
        results = list(pool.map(lambda path: _stats(fs, path), sorted(stats)[:MAX_STATS]))
    known = [shard for shard in results if shard is not None]
    reasons: Counter[str] = Counter()
    for shard in known:
        reasons.update(shard.reasons)
    return Downloads(
        files=len(known),
        requested=sum(shard.count for shard in known),
        downloaded=sum(shard.successes for shard in known),
        reasons=tuple(reasons.most_common()),
        unreadable=len(results) - len(known),
    )


def _stats(fs: Any, path: str) -> _Stats | None:  # noqa: ANN401 - fsspec has no types
    try:
        stats: Any = json.loads(fs.cat_file(path))
        counts = dict(stats["status_dict"])
        reasons = {str(reason): int(count) for reason, count in counts.items() if reason != "success"}
        return _Stats(int(stats["count"]), int(stats["successes"]), reasons)
    except (ValueError, TypeError, KeyError, *store_errors()):
        return None
