"""Several drivers on disjoint parts of one plan: every shard is in one part, and nobody divides the plan otherwise."""

import uuid
from collections import Counter

import pytest

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.parts_record import Part, claim_parts, read_parts
from pipeline.ledger.shard_plan import Plan
from schemas.shard import Shard
from tests.memory_store import MemoryStore

PATHS = [f"{n // 100:03d}/{n:05d}.tar" for n in range(4000)]


@pytest.fixture
def store():
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


@pytest.mark.parametrize("of", [1, 3, 8])
def test_every_shard_is_in_exactly_one_part_and_the_parts_are_equal(of):
    plan = Plan({path: Shard(path, path, 1, "e") for path in PATHS})
    parts = [Part(number, of).restrict(plan).shards for number in range(1, of + 1)]
    assert Counter(path for part in parts for path in part) == Counter(PATHS)
    assert max(map(len, parts)) < 1.2 * len(PATHS) / of


def test_a_shard_stays_in_its_part_when_the_plan_grows():
    assert [Part(number, 3).has("000/00000.tar") for number in (1, 2, 3)] == [False, False, True]
    assert Part(1, 2).has("images/caf\udce9.tar") is not Part(2, 2).has("images/caf\udce9.tar")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "1/1001", "", "1.5/2", "²/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ConfigError, match=r"allowed: K/N with 1 <= K <= N <= 1000, such as 3/8"):
        Part.parse(text)


def test_parts_of_one_number_share_an_output_and_others_are_refused(store):
    assert read_parts(store) is None
    for number in (1, 2, 1):
        claim_parts(store, Part(number, 2))
    assert read_parts(store) == 2
    with pytest.raises(OutputMismatch, match=r"divide its plan into 2 parts, found --part 1/3; parts of another"):
        claim_parts(store, Part(1, 3))


def test_of_two_drivers_at_once_the_second_is_refused(store, monkeypatch):
    read, looked = MemoryStore.get, []

    def late(self, path):
        if not looked:
            looked.append(path)
            claim_parts(store, Part(1, 2))
            raise FileNotFoundError(path)
        return read(self, path)

    monkeypatch.setattr(MemoryStore, "get", late)
    with pytest.raises(OutputMismatch, match="into 2 parts, found --part 1/3"):
        claim_parts(store, Part(1, 3))


def test_a_damaged_record_is_an_error(store):
    store.put("parts.json", b"{}")
    with pytest.raises(StoreError, match=r"parts\.json: damaged"):
        read_parts(store)
