import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.layout import committed_path, quarantine_path
from pipeline.ledger.quarantine import Quarantined, list_quarantine, put_quarantine, remove_quarantine
from pipeline.ledger.shard_plan import Plan, claim_plan, read_plan, remaining
from schemas.plan import PLAN
from schemas.shard import Shard
from tests.ledger import world
from tests.ledger.faults import Interposed, losing_answers

SHARDS = [Shard(f"photos/{i:05d}.tar", f"s3://b/photos/{i:05d}.tar", i, f"etag-{i}") for i in range(5)]


def test_a_plan_is_fixed_once_and_read_back(store):
    plan = claim_plan(store, SHARDS)
    assert list(plan.shards.values()) == SHARDS
    assert plan.unplanned == ()
    assert claim_plan(store, list(reversed(SHARDS))) == plan
    assert list(claim_plan(store, list(reversed(SHARDS))).shards) == [shard.path for shard in SHARDS]
    assert read_plan(store) == plan
    assert pq.read_schema(pa.BufferReader(store.get("plan.parquet"))).equals(PLAN)


def test_the_url_is_that_of_today(store):
    claim_plan(store, SHARDS)
    moved = [replace(shard, url=f"/mnt/{shard.path}") for shard in SHARDS]
    assert list(claim_plan(store, moved).shards.values()) == moved
    assert list(read_plan(store).shards.values()) == SHARDS


@pytest.mark.parametrize(
    ("now", "result"),
    [
        (
            [*SHARDS[:4], replace(SHARDS[4], size=7)],
            "1 of 5 .*: photos/00004.tar was 4 bytes, etag etag-4, is 7, etag etag-4. ",
        ),
        ([*SHARDS[:4], replace(SHARDS[4], etag="x")], "photos/00004.tar was 4 bytes, etag etag-4, is 4, etag x"),
        (SHARDS[1:], r"photos/00000.tar is gone \(was 0 bytes, etag etag-0\)"),
        (
            SHARDS[4:],
            r"4 of 5 .*00000.tar is gone.*00001.tar is gone.*00002.tar is gone.*; and 1 more. Restore them, or",
        ),
    ],
)
def test_a_shard_that_changed_or_went_is_refused(store, now, result):
    claim_plan(store, SHARDS)
    with pytest.raises(OutputMismatch, match=result):
        claim_plan(store, now)


def test_new_shards_are_named_and_not_added(store):
    claim_plan(store, SHARDS[:3])
    plan = claim_plan(store, SHARDS)
    assert list(plan.shards.values()) == SHARDS[:3]
    assert plan.unplanned == tuple(SHARDS[3:])
    assert list(read_plan(store).shards.values()) == SHARDS[:3]


def test_no_shards_and_duplicate_shards_are_refused(store):
    with pytest.raises(ConfigError, match="source: no shards"):
        claim_plan(store, [])
    with pytest.raises(ConfigError, match=r"photos/00000.tar: occurs twice"):
        claim_plan(store, [SHARDS[0], SHARDS[0]])
    assert world.paths(store) == []


def test_two_drivers_at_once_end_with_the_same_plan(local):
    barrier = threading.Barrier(2)

    def meet(_, name):
        if name == "create":
            barrier.wait(10)

    def drive(shards):
        return claim_plan(Interposed(local, before=meet), shards)

    with ThreadPoolExecutor(2) as pool:
        item, two = pool.map(drive, [SHARDS, list(reversed(SHARDS))])
    assert list(item.shards) == list(two.shards) == list(read_plan(local).shards)


def test_a_lost_answer_is_still_a_plan(store):
    assert list(claim_plan(losing_answers(store, ConnectionError()), SHARDS).shards.values()) == SHARDS


def test_a_torn_plan_is_refused(store):
    claim_plan(store, SHARDS)
    whole = store.get("plan.parquet")
    for length in range(len(whole)):
        store.put("plan.parquet", whole[:length])
        with pytest.raises(StoreError, match=r"plan\.parquet: damaged"):
            read_plan(store)


def test_another_schema_version_is_refused(store):
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, PLAN) as writer:
        writer.add_key_value_metadata({"joyfleet.schema_version": "99"})
        writer.write_table(PLAN.empty_table())
    store.put("plan.parquet", sink.getvalue().to_pybytes())
    with pytest.raises(OutputMismatch, match="schema version '99', and this JoyFleet reads '2'"):
        claim_plan(store, SHARDS)


def test_a_missing_plan_is_reported(store):
    with pytest.raises(ConfigError, match="there is no plan; run `joyfleet caption` first"):
        read_plan(store)


def quarantined(shard, message="torn"):
    return Quarantined(
        shard=shard, message=message, attempts=2, time="2026-11-20T00:00:00+00:00", versions={"ray": "2.60"}
    )


def test_remaining_is_planned_minus_committed_minus_quarantined(store):
    plan = claim_plan(store, SHARDS)
    calls = []
    store.put(committed_path(SHARDS[0].path), b"")
    store.put(committed_path("foreign.tar"), b"")
    put_quarantine(store, quarantined(SHARDS[0].path))
    put_quarantine(store, quarantined(SHARDS[1].path))
    later = world.stage(store, [5], shard=SHARDS[2])
    first = world.stage(store, [1, 3], shard=SHARDS[2])
    world.stage(store, [0], shard=SHARDS[0])
    store.put(f"staging/{SHARDS[3].path}/not a fragment", b"")
    left = remaining(Interposed(store, before=lambda _, name: calls.append(name)), plan)
    assert dict(left.fragments) == {SHARDS[2].path: (first, later), SHARDS[3].path: (), SHARDS[4].path: ()}
    assert left.committed == {SHARDS[0].path}
    assert left.quarantined == {SHARDS[1].path}
    assert calls == ["list"] * 3


def test_a_quarantine_record_is_replaced_listed_and_removed(store):
    put_quarantine(store, quarantined("b.tar"))
    put_quarantine(store, quarantined("b.tar", "worse"))
    put_quarantine(store, quarantined("a/ü.tar"))
    assert list_quarantine(store) == [quarantined("a/ü.tar"), quarantined("b.tar", "worse")]
    remove_quarantine(store, ["b.tar", "never.tar"])
    assert [record.shard for record in list_quarantine(store)] == ["a/ü.tar"]
    store.put(quarantine_path("torn.tar"), b'{"shard": ')
    with pytest.raises(StoreError, match=r"torn.tar.json: not a quarantine record .* `unquarantine`"):
        list_quarantine(store)


def test_thirty_thousand_shards_are_compared_in_seconds_of_cpu(store):
    shards = [Shard(f"{number:06d}.tar", "", 1, "e") for number in range(30_000)]
    paths = [committed_path(shard.path) for shard in shards[:-3]]
    for path in paths:
        store.put(path, b"")
    began = time.process_time()
    try:
        left = remaining(store, Plan({shard.path: shard for shard in shards}))
    finally:
        spent = time.process_time() - began
        store.delete(paths)
    assert sorted(left.fragments) == [shard.path for shard in shards[-3:]]
    assert spent < 3  # 0.1 s; comparing each shard with a set made anew took 9 s
