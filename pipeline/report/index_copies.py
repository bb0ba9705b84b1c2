"""Which images of an index are copies of others: the followers of all clusters, and the largest clusters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.index.clusters import open_index_clusters
from pipeline.ledger.index_files import Index, iter_rows, read_rows
from schemas.duplicates import FOLLOWER
from schemas.index import Hash
from schemas.index_report import INDEX_COPIES

SHOWN_CLUSTERS = 6
"""The largest ones of each kind."""
SHOWN_FOLLOWERS = 2
"""The first ones of each cluster that is shown."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCluster:
    """A cluster on the page."""

    size: int
    """Images, the leader included."""
    rows: Sequence[Row]
    """Index rows of the leader and the first followers, each with its `distance` from the leader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The clusters by one kind of hash."""

    by: Hash
    max_distance: int
    """Bits; 0 for equal bytes."""
    images: int
    """Images that have such a hash."""
    followers: pa.Table
    """`schemas.duplicates.FOLLOWER`, in the index's order."""
    num_clusters: int
    largest: Sequence[ShownCluster]

    @property
    def summary(self) -> dict[str, Any]:
        """The row of `INDEX_COPIES`."""
        copies = self.followers.num_rows
        return {
            "by": self.by.value,
            "distance": self.max_distance,
            "images": self.images,
            "clusters": self.num_clusters,
            "members": copies + self.num_clusters,
            "copies": copies,
        }


def find_copies(index: Index, near_bits: int, memory_gib: float) -> list[Copies]:
    """Find the clusters by each hash that the index has: of equal bytes, and of hashes within `near_bits` bits.

    The rows of the index are read once for each. Memory beyond DuckDB's: some 100 bytes for each follower.

    Raises:
        ConfigError: DuckDB is not installed.
        PipelineError: DuckDB needs more memory than `memory_gib`.
        OutputMismatch, StoreError: as `read_rows`.
    """
    kinds = [(Hash.SHA256, None), (Hash.PHASH, near_bits)]
    return [_copies(index, by, distance, memory_gib) for by, distance in kinds if by in index.hashes]


def copies_table(copies: Sequence[Copies]) -> pa.Table:
    """Return the figures of all kinds of clusters."""
    return pa.Table.from_pylist([kind.summary for kind in copies], schema=INDEX_COPIES)


def _copies(index: Index, by: Hash, max_distance: int | None, memory_gib: float) -> Copies:
    with open_index_clusters(iter_rows(index), max_distance, memory_gib) as found:
        followers = pa.concat_tables([FOLLOWER.empty_table(), *found])
    clusters = followers.group_by(["leader_shard", "leader_row"]).aggregate([("row", "count")])
    order = [("row_count", "descending"), ("leader_shard", "ascending"), ("leader_row", "ascending")]
    largest = clusters.sort_by(order).slice(0, SHOWN_CLUSTERS).to_pylist()
    return Copies(
        by=by,
        max_distance=max_distance or 0,
        images=sum(table.num_rows - table[by.value].null_count for table in iter_rows(index)),
        followers=followers,
        num_clusters=clusters.num_rows,
        largest=_shown(index, followers, largest),
    )


def _shown(index: Index, followers: pa.Table, largest: Sequence[Row]) -> list[ShownCluster]:
    leaders = {(row["leader_shard"], row["leader_row"]): row["row_count"] + 1 for row in largest}
    members: dict[tuple[str, int], list[tuple[str, int, int]]] = {leader: [(*leader, 0)] for leader in leaders}
    for batch in followers.to_batches():
        pairs = zip(batch["leader_shard"].to_pylist(), batch["leader_row"].to_pylist(), strict=True)
        for row in batch.filter(pa.array([pair in leaders for pair in pairs], pa.bool_())).to_pylist():
            shown = members[row["leader_shard"], row["leader_row"]]
            if len(shown) <= SHOWN_FOLLOWERS:
                shown.append((row["shard"], row["row"], row["distance"]))
    rows = _rows(index, {member[:2] for shown in members.values() for member in shown})
    return [
        ShownCluster(
            size=leaders[leader], rows=[{**rows[shard, row], "distance": bits} for shard, row, bits in members[leader]]
        )
        for leader in leaders
    ]


def _rows(index: Index, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], Row]:
    rows: dict[tuple[str, int], Row] = {}
    for path in sorted({shard for shard, _ in wanted}):
        table = read_rows(index.store, index.fingerprint, index.plan.shards[path])
        numbers = sorted(row for shard, row in wanted if shard == path)
        rows |= {(path, row["row"]): row for row in table.take(numbers).to_pylist()}
    return rows
