"""Which caption rows of a chained output are stale: the parent's captions that they used have changed since.

Nothing is stored about staleness. A row has the slots of the parent that it used and the digest of their captions, so
two files decide: the child's and the parent's of the same shard.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StoreError
from pipeline.ledger.layout import committed_path
from pipeline.storage import Store
from pipeline.storage.parquet import iter_parquet
from schemas.caption_row import CAPTION_ROW, DIGEST_BYTES
from schemas.status import Status

READERS = 16
"""Pairs of files read at the same time: a few MB each, and most of the time is the latency of the store."""
BATCH_ROWS = 4096

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleCount:
    """The stale rows of an output."""

    rows: int
    edited: int
    """Of them, those that a person has edited: `retry --rows stale` leaves them alone."""
    shards: int
    """With such rows."""


def parent_digest(captions: Iterable[str | None]) -> str:
    """Return the digest of captions of the parent (`schemas.caption_row.DIGEST_BYTES` defines it).

    Args:
        captions: of the used slots, in order; None where the parent's row is not ok.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for caption in captions:
        data = None if caption is None else caption.encode()
        digest.update(b"-," if data is None else b"%d:%b," % (len(data), data))
    return digest.hexdigest()


def staleness(parent: Store, shard: str) -> Callable[[Row], bool]:
    """Read the parent's captions of a shard; return whether a caption row of the child is stale.

    Raises:
        StoreError: the parent's file is gone or damaged.
    """
    captions = {
        (row["row"], row["slot"]): row["caption"]
        for row in _rows(parent, shard, ("row", "slot", "status", "caption"))
        if row["status"] == Status.OK
    }

    def is_stale(row: Row) -> bool:
        if row["parent_digest"] is None:
            return False
        current = parent_digest(captions.get((row["row"], slot)) for slot in row["parent_slots"])
        return row["parent_digest"] != current

    return is_stale


def count_stale_rows(output: Store, parent: Store, shards: Iterable[str]) -> StaleCount:
    """Count the stale rows of committed shards: reads their files in both outputs.

    Raises:
        StoreError: a file is gone or damaged.
    """

    def count(shard: str) -> tuple[int, int]:
        is_stale = staleness(parent, shard)
        stale = [row for row in _rows(output, shard, _OF_A_CHILD) if is_stale(row)]
        return len(stale), sum(row["edited_by"] is not None for row in stale)

    with ThreadPoolExecutor(READERS) as pool:
        counts = list(pool.map(count, shards))
    return StaleCount(
        rows=sum(rows for rows, _ in counts),
        edited=sum(edited for _, edited in counts),
        shards=sum(rows > 0 for rows, _ in counts),
    )


_OF_A_CHILD = ("row", "parent_slots", "parent_digest", "edited_by")


def _rows(store: Store, shard: str, columns: tuple[str, ...]) -> Iterable[dict[str, Any]]:
    """The caption rows of a committed shard, with some columns."""
    path = committed_path(shard)
    try:
        for batch in iter_parquet(store.get(path), CAPTION_ROW, columns, BATCH_ROWS):
            yield from batch.to_pylist()
    except FileNotFoundError as err:
        raise StoreError(f"{store.url}/{path}: is gone; restore the file") from err
    except ValueError as err:
        raise StoreError(f"{store.url}/{path}: {err}; restore the file") from err
