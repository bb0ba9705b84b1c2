"""How many images img2dataset failed to download: told by its own counts, since its tars and folders leave them out."""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from pipeline.readers.transport import store_errors

MAX_STATS = 1000
"""Files read; a data set of 10 M images has so many, 3 s on S3. Beyond them the counts are of the first ones."""

READERS = 16


@dataclass(frozen=True, slots=True)
class Downloads:
    """What `<shard>_stats.json` say together."""

    files: int
    asked: int
    downloaded: int
    reasons: tuple[tuple[str, int], ...]
    """Why others failed, the most frequent first."""
    unreadable: int
    """Files that say nothing."""


@dataclass(frozen=True, slots=True)
class _Stats:
    count: int
    successes: int
    reasons: dict[str, int]


def downloads(stats: Sequence[str], url: str) -> Downloads:
    """Add up img2dataset's counts, of at most `MAX_STATS` files in the store of `url`."""
    fs, _ = url_to_fs(url)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda path: _stats(fs, path), sorted(stats)[:MAX_STATS]))
    known = [one for one in found if one is not None]
    reasons: Counter[str] = Counter()
    for one in known:
        reasons.update(one.reasons)
    return Downloads(
        files=len(known),
        asked=sum(one.count for one in known),
        downloaded=sum(one.successes for one in known),
        reasons=tuple(reasons.most_common()),
        unreadable=len(found) - len(known),
    )


def _stats(fs: Any, path: str) -> _Stats | None:  # noqa: ANN401 - fsspec has no types
    try:
        one: Any = json.loads(fs.cat_file(path))
        reasons = {str(reason): int(count) for reason, count in dict(one["status_dict"]).items() if reason != "success"}
        return _Stats(int(one["count"]), int(one["successes"]), reasons)
    except (ValueError, TypeError, KeyError, *store_errors()):
        return None
