"""Chooses the caption rows that the report shows: some of every kind, and the worst, from few shards.

A kind is a mode, a status and a reason, so that rare ones are seen too. Of each, rows are drawn by the
hash of their identity, up to `OF_A_SHARD` from a shard before the next shard has its turn: thumbnails
are read back from the sources, and a hundred shards are a hundred files to open.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.report.key_sample import hash64
from schemas.status import Status

OF_A_KIND = 12
OF_A_SHARD = 3
WORST = 24
MAX_ROWS = 240
"""In all: a page of some 3 MB with photographs (estimated; 0.7 MB with 79 drawn pictures)."""

Key = tuple[float, int, int]
"""Smaller is shown first: rank or trouble, hash of the shard, hash of the row."""


class Smallest:
    """The `size` rows with the smallest keys, each with its values."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[Key, dict[str, Any]]] = []

    def wants(self, key: Key) -> bool:
        return len(self._heap) < self._size or key < _negative(self._heap[0][0])

    def add(self, key: Key, row: dict[str, Any]) -> None:
        # Keys are negated for a heap whose first is the largest; they are unique, so no two rows are compared.
        item = (_negative(key), row)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        elif self.wants(key):
            heapq.heapreplace(self._heap, item)

    @property
    def items(self) -> list[tuple[Key, dict[str, Any]]]:
        """In ascending order of their keys."""
        return sorted(((_negative(key), row) for key, row in self._heap), key=lambda item: item[0])


def _negative(key: Key) -> Key:
    return (-key[0], -key[1], -key[2])


@dataclass(slots=True)
class Gallery:
    """Takes batches of caption rows, a shard at a time."""

    kinds: dict[tuple[str, str, str], Smallest] = field(default_factory=dict[tuple[str, str, str], Smallest])
    worst: Smallest = field(default_factory=lambda: Smallest(WORST))
    _shard: str = ""
    _shard_hash: int = 0
    _of_shard: dict[tuple[str, str, str], Smallest] = field(default_factory=dict[tuple[str, str, str], Smallest])

    def begin(self, shard: str) -> None:
        """Start a shard; ends the one before."""
        self.end()
        self._shard, self._shard_hash = shard, hash64(shard)

    def end(self) -> None:
        """End a shard, so that its first rows by key enter the gallery."""
        for kind, found in self._of_shard.items():
            shown = self.kinds.setdefault(kind, Smallest(OF_A_KIND))
            for rank, (key, row) in enumerate(found.items):
                shown.add((rank // OF_A_SHARD, self._shard_hash, key[2]), row)
        self._of_shard.clear()

    def take(self, batch: pa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take some rows of the current shard.

        Args:
            batch: all columns of them.
            rows: at least identity, mode, status, reason, flags and attempts of each.
        """
        for index, row in enumerate(rows):
            kind = (row["mode"], row["status"], row["reason"] or "")
            shown = self.kinds.get(kind)
            trouble = trouble_of(row)
            if not trouble and shown is not None and not shown.wants((0, self._shard_hash, -1)):
                continue
            row_hash = hash64(f"{row['shard']}\x1f{row['row']}\x1f{row['slot']}")
            found = self._of_shard.setdefault(kind, Smallest(OF_A_KIND))
            keys = ((found, (0.0, self._shard_hash, row_hash)), (self.worst, (-trouble, self._shard_hash, row_hash)))
            wanted = [(where, key) for where, key in keys if where.wants(key) and (where is found or trouble)]
            whole: dict[str, Any] = batch.slice(index, 1).to_pylist()[0] if wanted else {}
            for where, key in wanted:
                where.add(key, whole)

    def rows(self) -> list[Shown]:
        """Return the rows to show, at most `MAX_ROWS`: the worst, then some of each kind in turn."""
        shown: dict[tuple[str, int, str], Shown] = {}
        for _, row in self.worst.items:
            shown.setdefault(_identity(row), Shown(row)).worst = True
        for row in _in_turn([[row for _, row in kind.items] for _, kind in sorted(self.kinds.items())]):
            if len(shown) >= MAX_ROWS:
                break
            shown.setdefault(_identity(row), Shown(row)).drawn = True
        return list(shown.values())


@dataclass(slots=True)
class Shown:
    """A row of the gallery, and why it was chosen."""

    row: Mapping[str, Any]
    worst: bool = False
    drawn: bool = False


def trouble_of(row: Mapping[str, Any]) -> float:
    """Return how doubtful an ok caption is: its flags and the attempts that it took; 0 for all other rows."""
    return 2.0 * len(row["flags"]) + row["attempts"] - 1 if row["status"] == Status.OK else 0.0


def _identity(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["shard"], row["row"], row["slot"]


def _in_turn(lists: Sequence[Sequence[dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    for place in range(max(map(len, lists), default=0)):
        yield from (rows[place] for rows in lists if place < len(rows))
