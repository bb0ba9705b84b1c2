"""Clusters of equal and of similar images, from their hashes, in DuckDB: beyond its memory it spills to disk.

The rule: rows are taken in one given order. A row follows the first earlier leader within the distance; without one it
is a leader itself. So every follower is within the distance of its leader, also in a chain A~B~C where A and C differ:
then C is a leader, since B is none. The result depends on the order alone, and rows that are added behind the others
change nothing about these.
"""

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.storage.duckdb_session import BATCH_ROWS, DuckSession, open_duckdb
from schemas.duplicates import CLUSTER, FOLLOWER

MEMORY_GIB = 4.0
"""Of DuckDB. 30 million rows with a sha256 take some 2 GB as a table, which it keeps on disk."""

BITS = 64
"""Of a perceptual hash."""

JOIN_COST = 50.0
"""Time to put a row into a hash join, in comparisons of two hashes. Only the choice of the bands depends on it."""

ROW_BITS = 32
"""Of an item number, for the row; the rest is the number of its shard."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of a table of hashes; gone when the context of `open_clusters` ends."""

    session: DuckSession

    def followers(self, first_item: int = 0, end_item: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the followers with item numbers in a range (`schemas.duplicates.CLUSTER`), by item number."""
        end = f" AND item < {end_item}" if end_item is not None else ""
        sql = f"SELECT * FROM followers WHERE item >= {first_item}{end} ORDER BY item"
        for batch in self.session.batches(sql):
            yield from pa.Table.from_batches([batch]).cast(CLUSTER).to_batches()

    def first_difference(self) -> "Difference | None":
        """Return the first follower whose `text` differs from that of its leader, or None."""
        differing = (
            "FROM followers JOIN items own ON own.item = followers.item "
            "JOIN items lead ON lead.item = followers.leader WHERE own.text IS DISTINCT FROM lead.text"
        )
        first = self.session.rows(
            f"SELECT own.item, lead.item, own.text, lead.text {differing} ORDER BY own.item LIMIT 1"
        )
        if not first:
            return None
        [(item, leader, text, lead_text)] = first
        [(number,)] = self.session.rows(f"SELECT count(*) {differing}")
        return Difference(items=(item, leader), texts=(text, lead_text), number=number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A follower and its leader, with texts that should be equal."""

    items: tuple[int, int]
    texts: tuple[str, str]
    number: int
    """Of all such followers."""


@contextmanager
def open_clusters(
    batches: Iterable[pa.RecordBatch], max_distance: int | None, memory_gib: float = MEMORY_GIB
) -> Iterator[Clusters]:
    """Find the clusters of rows; memory beyond DuckDB's: 4 bytes for each different perceptual hash.

    Args:
        batches: columns `item` (int64, each once: its order is that in which leaders are chosen), `sha256` and `phash`,
            as in `schemas.index.INDEX_SCHEMA`, and maybe `text`. A row without the hash is in no cluster.
        max_distance: bits of 64 in which perceptual hashes may differ; None: equal sha256.
        memory_gib: DuckDB's memory.
    """
    with open_duckdb(memory_gib) as session:
        values = map(_exact if max_distance is None else _perceptual, batches)
        first = next(values, None)
        if first is None:
            first = _hashed(pa.record_batch({"item": pa.array([], pa.int64())}), pa.array([], pa.int64()))
        session.load("items", itertools.chain([first], values), first.schema)
        if max_distance is None:
            session.run(
                "CREATE TABLE led AS SELECT value, min(item) AS leader, 0 AS distance, count(*) AS size "
                "FROM items GROUP BY value HAVING count(*) > 1"
            )
        else:
            _lead_similar(session, max_distance)
        session.run(
            "CREATE TABLE followers AS SELECT item, leader, distance, size AS cluster_size "
            "FROM items JOIN led USING (value) WHERE item <> leader"
        )
        yield Clusters(session)


def _exact(batch: pa.RecordBatch) -> pa.RecordBatch:
    known = batch.filter(batch["sha256"].is_valid())
    digests = pa.array([bytes.fromhex(text) for text in known["sha256"].to_pylist()], pa.binary())
    return _hashed(known, digests)


def _perceptual(batch: pa.RecordBatch) -> pa.RecordBatch:
    known = batch.filter(batch["phash"].is_valid())
    # Signed, as DuckDB's bit_count wants it: the bits are the same.
    hashes = pa.array(known["phash"].to_numpy().view(np.int64))
    return _hashed(known, hashes)


def _hashed(batch: pa.RecordBatch, values: pa.Array) -> pa.RecordBatch:
    text = batch["text"] if "text" in batch.schema.names else pa.nulls(batch.num_rows, pa.string())
    return pa.record_batch([batch["item"], values, text], names=["item", "value", "text"])


def _lead_similar(session: DuckSession, max_distance: int) -> None:
    """Make the table `led`: of each hash its leader, by the rule above.

    Rows with the same hash have the same leader, so the rule is applied to different hashes, in the order of their
    first rows.
    """
    session.run(
        "CREATE TABLE hashes AS SELECT row_number() OVER (ORDER BY min(item)) - 1 AS number, value, "
        "min(item) AS first_item, count(*) AS size FROM items GROUP BY value"
    )
    [(num_hashes,)] = session.rows("SELECT count(*) FROM hashes")
    session.run("CREATE TABLE pairs (earlier BIGINT, later BIGINT)")
    for mask in band_masks(num_hashes, max_distance):
        session.run(
            "INSERT INTO pairs SELECT a.number, b.number FROM hashes a JOIN hashes b "
            f"ON (a.value & CAST({mask} AS BIGINT)) = (b.value & CAST({mask} AS BIGINT)) AND a.number < b.number "
            f"WHERE bit_count(xor(a.value, b.value)) <= {max_distance}"
        )
    schema = pa.schema([pa.field("number", pa.int64()), pa.field("leader", pa.int64())])
    # Not inside `load`: a connection answers one query at a time.
    leaders = _leaders(session, num_hashes)
    session.load("leaders", _in_batches(leaders, schema), schema)
    session.run(
        "CREATE TABLE led AS SELECT own.value, lead.first_item AS leader, "
        "CAST(bit_count(xor(own.value, lead.value)) AS INTEGER) AS distance, "
        "CAST(sum(own.size) OVER (PARTITION BY lead.number) AS BIGINT) AS size "
        "FROM hashes own LEFT JOIN leaders ON leaders.number = own.number "
        "JOIN hashes lead ON lead.number = coalesce(leaders.leader, own.number)"
    )


def _leaders(session: DuckSession, num_hashes: int) -> "array[int]":
    """Return the leader of each hash, maybe itself; hashes are numbered in their order."""
    leader_of = array("i" if num_hashes < 2**31 else "q", range(num_hashes))
    for batch in session.batches("SELECT DISTINCT later, earlier FROM pairs ORDER BY later, earlier"):
        for later, earlier in zip(batch["later"].to_pylist(), batch["earlier"].to_pylist(), strict=True):
            # An earlier hash is decided: all of its pairs came before.
            if leader_of[later] == later and leader_of[earlier] == earlier:
                leader_of[later] = earlier
    return leader_of


def _in_batches(leader_of: "array[int]", schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield each hash that has another one as leader."""
    for start in range(0, len(leader_of), BATCH_ROWS):
        leaders = np.array(leader_of[start : start + BATCH_ROWS], np.int64)
        numbers = np.arange(start, start + len(leaders))
        led = leaders != numbers
        yield pa.record_batch([pa.array(numbers[led]), pa.array(leaders[led])], schema=schema)


def band_masks(num_hashes: int, max_distance: int) -> list[int]:
    """Return masks, as signed 64-bit numbers: two hashes within the distance are equal under at least one of them.

    The bits are divided into bands. In `max_distance` bits two hashes differ in at most as many bands, so of
    `max_distance + k` bands at least k are equal (the pigeonhole principle): one mask for each k of them. More bands
    mean more joins over fewer candidates; the cheapest number is taken.
    """
    if not max_distance:
        return []

    def cost(num_bands: int) -> float:
        num_equal = num_bands - max_distance
        candidates = num_hashes / 2 ** (BITS * num_equal / num_bands)
        return math.comb(num_bands, num_equal) * (JOIN_COST + candidates)

    num_bands = min(range(max_distance + 1, 2 * max_distance + 8), key=cost)
    edges = [BITS * band // num_bands for band in range(num_bands + 1)]
    bands = [(1 << end) - (1 << start) for start, end in itertools.pairwise(edges)]
    masks = [sum(chosen) for chosen in itertools.combinations(bands, num_bands - max_distance)]
    return [mask - (1 << BITS) if mask >> (BITS - 1) else mask for mask in masks]


@contextmanager
def open_index_clusters(
    tables: Iterable[pa.Table], max_distance: int | None, memory_gib: float = MEMORY_GIB
) -> Iterator[Iterator[pa.Table]]:
    """Find the clusters of an index; yields the followers (`schemas.duplicates.FOLLOWER`), in the index's order.

    Args:
        tables: the index rows of one shard each, in the order of the plan; a leader is the first of its cluster.
        max_distance: as `open_clusters`.
        memory_gib: DuckDB's memory.
    """
    shards: list[str] = []

    def items() -> Iterator[pa.RecordBatch]:
        for table in tables:
            if table.num_rows:
                shards.append(table["shard"][0].as_py())
                yield from item_batches(table, len(shards) - 1)

    with open_clusters(items(), max_distance, memory_gib) as clusters:
        yield (with_names(batch, shards) for batch in clusters.followers())


def item_batches(table: pa.Table, shard_number: int) -> Iterator[pa.RecordBatch]:
    """Yield the hashes of index rows of one shard, numbered by shard and row."""
    items = table["row"].to_numpy() + (shard_number << ROW_BITS)
    columns = [pa.array(items), table["sha256"], table["phash"]]
    yield from pa.table(columns, names=["item", "sha256", "phash"]).to_batches()


def with_names(batch: pa.RecordBatch, shards: Sequence[str]) -> pa.Table:
    """Return followers (`schemas.duplicates.CLUSTER`) with shards and rows in place of item numbers."""
    columns: list[pa.Array] = []
    names = pa.array(shards, pa.string())
    for name in ("item", "leader"):
        numbers = batch[name].to_numpy()
        columns.append(names.take(pa.array((numbers >> ROW_BITS) % max(1, len(shards)))))
        columns.append(pa.array(numbers % (1 << ROW_BITS)))
    return pa.Table.from_arrays([*columns, batch["distance"], batch["cluster_size"]], schema=FOLLOWER)
