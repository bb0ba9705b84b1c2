"""Chooses the caption rows that the report shows: some of every kind, and the most doubtful, from few shards.

A kind is a mode, a status and a reason, so that rare ones are shown too. Of each kind, rows are chosen by the hash of
their identity, up to `OF_A_SHARD` from one shard before another shard is used: thumbnails are read from the source
again, and each shard is a file to open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.report.key_sample import Smallest, hash64
from schemas.status import Status

OF_A_KIND = 12
OF_A_SHARD = 3
WORST = 24
MAX_ROWS = 240
"""In all: a page of some 3 MB with photographs (estimated; 0.7 MB with 79 drawn pictures)."""

Kind = tuple[str, str, str]
"""Mode, status and reason."""
Key = tuple[float, int, int]
"""Smaller is shown first: rank or negated doubt, hash of the shard, hash of the row."""


Rows = Smallest[Key, dict[str, Any]]


@dataclass(slots=True)
class Gallery:
    """Takes batches of caption rows, a shard at a time."""

    kinds: dict[Kind, Rows] = field(default_factory=dict[Kind, Rows])
    worst: Rows = field(default_factory=lambda: Rows(WORST))
    _shard: str = ""
    _shard_hash: int = 0
    _of_shard: dict[Kind, Rows] = field(default_factory=dict[Kind, Rows])

    def begin(self, shard: str) -> None:
        """Start a shard; ends the one before."""
        self.end()
        self._shard, self._shard_hash = shard, hash64(shard)

    def end(self) -> None:
        """End a shard, so that its first rows by key enter the gallery."""
        for kind, rows in self._of_shard.items():
            shown = self.kinds.setdefault(kind, Rows(OF_A_KIND))
            for rank, (key, row) in enumerate(rows.items):
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
            doubt = doubt_of(row)
            if not doubt and shown is not None and not shown.wants((0, self._shard_hash, -1)):
                continue
            row_hash = hash64(f"{row['shard']}\x1f{row['row']}\x1f{row['slot']}")
            keys = [(self._of_shard.setdefault(kind, Rows(OF_A_KIND)), (0.0, self._shard_hash, row_hash))]
            keys += [(self.worst, (-doubt, self._shard_hash, row_hash))] if doubt else []
            wanted = [(rows_of, key) for rows_of, key in keys if rows_of.wants(key)]
            whole: dict[str, Any] = batch.slice(index, 1).to_pylist()[0] if wanted else {}
            for rows_of, key in wanted:
                rows_of.add(key, whole)

    def rows(self) -> list[Shown]:
        """Return the rows to show, at most `MAX_ROWS`: the most doubtful, then some of each kind in turn."""
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


def doubt_of(row: Mapping[str, Any]) -> float:
    """Return how doubtful an ok caption is: its flags and the attempts that it took; 0 for all other rows."""
    return 2.0 * len(row["flags"]) + row["attempts"] - 1 if row["status"] == Status.OK else 0.0


def _identity(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["shard"], row["row"], row["slot"]


def _in_turn(lists: Sequence[Sequence[dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    for place in range(max(map(len, lists), default=0)):
        yield from (rows[place] for rows in lists if place < len(rows))
