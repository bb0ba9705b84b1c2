"""Clusters of equal and similar images: the rule, its independence of everything but the order, and the bands."""

import itertools
import random

import pyarrow as pa
import pytest

from pipeline.index.clusters import band_masks, open_clusters, open_index_clusters
from schemas.duplicates import CLUSTER, FOLLOWER
from schemas.index import INDEX_SCHEMA


def batches_of(rows, size=7):
    """Rows are (item, sha256, phash)."""
    for start in range(0, len(rows), size):
        items, digests, hashes = zip(*rows[start : start + size], strict=True)
        columns = [pa.array(items, pa.int64()), pa.array(digests, pa.string()), pa.array(hashes, pa.uint64())]
        yield pa.record_batch(columns, names=["item", "sha256", "phash"])


def found(rows, max_distance):
    with open_clusters(batches_of(rows), max_distance, 0.5) as opened:
        tables = [pa.Table.from_batches([batch]) for batch in opened.followers()]
    table = pa.concat_tables([CLUSTER.empty_table(), *tables])
    return {row["item"]: (row["leader"], row["distance"], row["cluster_size"]) for row in table.to_pylist()}


def greedy(rows, max_distance):
    """The rule as its docstring says it, with a loop over all leaders."""
    leaders, led = {}, {}
    for item, _, value in sorted(rows):
        if value is None:
            continue
        near = [leader for leader in leaders if (leaders[leader] ^ value).bit_count() <= max_distance]
        if near:
            led[item] = (min(near), (leaders[min(near)] ^ value).bit_count())
        else:
            leaders[item] = value
    sizes = {leader: 1 + sum(pair[0] == leader for pair in led.values()) for leader in leaders}
    return {item: (leader, distance, sizes[leader]) for item, (leader, distance) in led.items()}


def hashes_near_each_other(seed, number=120):
    """Hashes in families of some that differ in up to 6 bits, among others."""
    rng = random.Random(seed)
    rows = []
    for item in range(number):
        value = rng.getrandbits(64)
        if rows and rng.random() < 0.6:
            value = rng.choice(rows)[2] or 0
            for bit in rng.sample(range(64), rng.randint(0, 6)):
                value ^= 1 << bit
        rows.append((item, None, None if rng.random() < 0.05 else value))
    return rows


def test_the_first_of_equal_images_is_the_leader_and_rows_without_a_hash_have_none():
    digests = {name: f"{name:064x}" for name in range(3)}
    rows = [(5, digests[0], None), (2, digests[0], None), (9, digests[0], None), (4, digests[1], None)]
    rows += [(1, None, None), (3, None, None), (7, digests[2], None), (8, digests[2], None)]
    assert found(rows, None) == {5: (2, 0, 3), 9: (2, 0, 3), 8: (7, 0, 2)}


def test_nothing_has_no_clusters():
    assert found([], None) == found([], 4) == {}
    assert found([(1, None, None)], 3) == {}


@pytest.mark.parametrize("max_distance", [0, 1, 2, 3, 4, 6, 8])
def test_similar_images_follow_the_first_leader_within_the_distance(max_distance):
    for seed in range(2):
        rows = hashes_near_each_other(seed)
        assert found(rows, max_distance) == greedy(rows, max_distance)


def test_of_a_chain_each_follower_is_within_the_distance_of_its_leader():
    a, b, c = 0, 0b11, 0b1111
    assert found([(0, None, a), (1, None, b), (2, None, c)], 2) == {1: (0, 2, 2)}
    assert found([(0, None, b), (1, None, a), (2, None, c)], 2) == {1: (0, 2, 3), 2: (0, 2, 3)}


def test_the_order_of_reading_changes_nothing():
    rows = hashes_near_each_other(3)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert found(rows, 4) == found(shuffled, 4)


def test_rows_behind_the_others_change_nothing_about_them():
    rows = hashes_near_each_other(4)
    whole, first = found(rows, 4), found(rows[:70], 4)
    assert {item: led[:2] for item, led in whole.items() if item < 70} == {item: led[:2] for item, led in first.items()}


@pytest.mark.parametrize(("num_hashes", "max_distance"), [(10, 1), (10, 8), (10**6, 3), (3 * 10**7, 4), (10**9, 8)])
def test_two_hashes_within_the_distance_are_equal_under_a_mask(num_hashes, max_distance):
    masks = band_masks(num_hashes, max_distance)
    assert all(-(2**63) <= mask < 2**63 for mask in masks)
    rng = random.Random(0)
    for _ in range(300):
        value = rng.getrandbits(64)
        other = value
        for bit in rng.sample(range(64), max_distance):
            other ^= 1 << bit
        assert any(value & mask % 2**64 == other & mask % 2**64 for mask in masks)


def test_more_hashes_get_finer_bands():
    def candidates(num_hashes):
        masks = band_masks(num_hashes, 4)
        return num_hashes / 2 ** min((mask % 2**64).bit_count() for mask in masks)

    assert len(band_masks(1000, 4)) == 5  # one band of five
    assert candidates(30_000_000) < 500


def test_an_index_gets_shards_and_rows():
    def table(shard, hashes):
        rows = [
            {
                **dict.fromkeys(INDEX_SCHEMA.names),
                "shard": shard,
                "row": row,
                "key": "k",
                "phash": value,
                "metadata": "{}",
            }
            for row, value in enumerate(hashes)
        ]
        return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)

    tables = [table("a.tar", [1, 2**63]), table("empty.tar", []), table("b.tar", [2**63, 0b10])]
    with open_index_clusters(tables, 2, 0.5) as followers:
        rows = pa.concat_tables([FOLLOWER.empty_table(), *followers]).to_pylist()
    names = ("shard", "row", "leader_shard", "leader_row", "distance", "cluster_size")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("a.tar", 1, "a.tar", 0, 2, 4),
        ("b.tar", 0, "a.tar", 0, 2, 4),
        ("b.tar", 1, "a.tar", 0, 2, 4),
    ]


def test_a_part_of_the_followers_can_be_read():
    digests = {name: f"{name:064x}" for name in range(2)}
    rows = [(item, digests[item % 2], None) for item in range(10)]
    with open_clusters(batches_of(rows), None, 0.5) as opened:
        parts = [[item for batch in opened.followers(first, first + 3) for item in batch["item"].to_pylist()]
                 for first in range(0, 12, 3)]  # fmt: skip
    assert list(itertools.chain(*parts)) == list(range(2, 10))
    assert parts[1] == [3, 4, 5]
