import pyarrow as pa
import pytest

from pipeline.errors import PipelineError
from pipeline.ledger.shard_tracker import CompletedShard, Receipt, ShardTracker
from schemas.batch import RECEIPT, BatchKind


def receipt(rows, fragment="f", shard="a.tar", num_images=4, kind=BatchKind.IMAGES):
    return Receipt(kind=kind, shard=shard, num_images=num_images, fragment=fragment, rows=rows)


def test_a_shard_is_complete_with_its_last_row():
    shards = ShardTracker()
    assert shards.add(receipt([2, 3], "two")) is None
    assert shards.add(receipt([0], "one", shard="b.tar")) is None
    assert shards.incomplete() == {"a.tar": 2, "b.tar": 3}
    assert shards.add(receipt([0, 1], "one", kind=BatchKind.RESUMED)) == CompletedShard("a.tar", 4, ("one", "two"))
    assert shards.incomplete() == {"b.tar": 3}


def test_an_empty_shard_is_complete_at_once():
    assert ShardTracker().add(receipt([], None, num_images=0, kind=BatchKind.EMPTY)) == CompletedShard("a.tar", 0, ())


def test_rows_that_come_twice_are_counted_once():
    shards = ShardTracker()
    shards.add(receipt([0, 1], "one"))
    shards.add(receipt([0, 1], "again"))
    shards.add(receipt([0, 1], "one"))
    assert shards.add(receipt([1, 2, 3], "two")) == CompletedShard("a.tar", 4, ("one", "two"))


def test_a_finished_shard_is_not_opened_again():
    shards = ShardTracker()
    shards.add(receipt([0, 1, 2, 3]))
    assert shards.add(receipt([0, 1], "late")) is None
    assert shards.incomplete() == {}
    shards.drop("quarantined.tar")
    assert shards.add(receipt([0], shard="quarantined.tar")) is None
    assert shards.incomplete() == {}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (receipt([4]), "shard a.tar: receipt with row 4; allowed: 0..3"),
        (receipt([-1]), "receipt with row -1"),
        (receipt([2], num_images=5), "receipt for 5 images, earlier receipts for 4; the shard changed"),
        (receipt([2, 2]), "has a row twice"),
        (receipt([2], None), "1 rows without a fragment"),
    ],
)
def test_an_impossible_receipt_is_refused_and_changes_nothing(bad, message):
    shards = ShardTracker()
    shards.add(receipt([0, 1]))
    with pytest.raises(PipelineError, match=message):
        shards.add(bad)
    assert shards.incomplete() == {"a.tar": 2}


def test_a_receipt_of_an_unreadable_shard_is_refused():
    with pytest.raises(ValueError, match="call `drop`"):
        ShardTracker().add(receipt([], None, kind=BatchKind.UNREADABLE))


def test_a_receipt_is_a_row_of_its_schema():
    row = dict.fromkeys(RECEIPT.names) | {"kind": "images", "shard": "a", "num_images": 1, "fragment": "f", "rows": [0]}
    [row] = pa.Table.from_pylist([row | {"statuses": [("ok", 1)]}], schema=RECEIPT).to_pylist()
    assert ShardTracker().add(Receipt.from_row(row)) == CompletedShard("a", 1, ("f",))
    assert Receipt.from_row(row).statuses == {"ok": 1}


def test_a_retry_expects_only_the_rows_that_it_wants():
    shards = ShardTracker({"a": [2, 5]})
    assert shards.add(Receipt(kind="images", shard="a", num_images=8, fragment="f", rows=[5])) is None
    assert shards.incomplete() == {"a": 1}
    complete = shards.add(Receipt(kind="images", shard="a", num_images=8, fragment="g", rows=[2]))
    assert complete is not None
    assert complete.fragments == ("f", "g")
    assert shards.add(Receipt(kind="images", shard="b", num_images=2, fragment="h", rows=[0])) is None
