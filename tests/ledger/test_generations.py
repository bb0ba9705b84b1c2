"""A plan that is extended: each generation is created once, follows the one before, and touches no older file."""

import contextlib
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, OutputMismatch, PlanExtended, StoreError
from pipeline.ledger.layout import committed_path, generation_of, generation_path
from pipeline.ledger.shard_plan import claim_plan, compare_with_source, extend_plan, read_plan, remaining
from pipeline.ledger.staging_cleanup import clean
from pipeline.storage import open_store
from pipeline.storage.parquet import encode_parquet
from schemas.plan import PLAN
from schemas.shard import Shard
from tests.ledger import world
from tests.ledger.faults import Crash, Interposed, crash, dying, losing_answers, sigkill
from tests.ledger.test_kill import OWN_CODE
from tests.processes import CONTEXT, was_killed

SHARDS = [Shard(f"photos/{i:05d}.tar", f"s3://b/photos/{i:05d}.tar", i, f"etag-{i}") for i in range(9)]
FIRST, SECOND, THIRD = "plan.parquet", "plan/00001.parquet", "plan/00002.parquet"


def extend(store, shards):
    """What `caption --extend` does with the plan."""
    plan = claim_plan(store, shards)
    return extend_plan(store, plan, plan.unplanned) if plan.unplanned else plan


@pytest.fixture
def grown(store):
    """A plan of three generations."""
    for number in (3, 5, 6):
        extend(store, SHARDS[:number])
    return store


def test_new_shards_are_a_generation_of_their_own_and_older_files_stay(store):
    claim_plan(store, SHARDS[:3])
    first = store.get(FIRST)
    plan = extend(store, SHARDS[:5])
    second = store.get(SECOND)
    assert (list(plan.shards.values()), plan.unplanned) == (SHARDS[:5], ())
    assert extend(store, SHARDS[:6]) == read_plan(store)
    assert list(read_plan(store).shards.values()) == SHARDS[:6]
    assert [len(generation.shards) for generation in read_plan(store).generations] == [3, 2, 1]
    assert (store.get(FIRST), store.get(SECOND)) == (first, second)
    assert world.paths(store) == [FIRST, SECOND, THIRD]
    assert pq.read_table(pa.BufferReader(second), columns=["shard"])["shard"].to_pylist() == [
        shard.path for shard in SHARDS[3:5]
    ]


def test_without_new_shards_nothing_is_written(grown):
    before = world.paths(grown)
    calls = []
    extend(Interposed(grown, before=lambda _, name: calls.append(name)), SHARDS[:6])
    assert world.paths(grown) == before
    assert set(calls) == {"exists", "get", "list"}


def test_a_part_of_the_new_shards_can_be_added(store):
    claim_plan(store, SHARDS[:3])
    plan = claim_plan(store, SHARDS[:6])
    plan = extend_plan(store, plan, plan.unplanned[1:])
    assert plan.unplanned == (SHARDS[3],)
    assert list(plan.shards.values()) == [*SHARDS[:3], *SHARDS[4:6]]


def test_the_url_of_every_generation_is_that_of_today(grown):
    moved = [replace(shard, url=f"/mnt/{shard.path}") for shard in SHARDS[:6]]
    assert list(claim_plan(grown, moved).shards.values()) == moved
    assert list(read_plan(grown).shards.values()) == SHARDS[:6]


@pytest.mark.parametrize("number", [0, 4, 5])
def test_a_shard_of_any_generation_that_changed_or_went_is_refused_by_name(grown, number):
    changed = [replace(shard, size=70) if shard is SHARDS[number] else shard for shard in SHARDS[:7]]
    with pytest.raises(OutputMismatch, match=rf"1 of 6 planned .* {SHARDS[number].path} was {number} bytes.* is 70"):
        extend(grown, changed)
    gone = [shard for shard in SHARDS[:7] if shard is not SHARDS[number]]
    with pytest.raises(OutputMismatch, match=rf"1 of 6 planned .* {SHARDS[number].path} is gone"):
        compare_with_source(grown.url, read_plan(grown), gone)
    assert len(read_plan(grown).generations) == 3


def test_shards_whose_files_exclude_each_other_are_refused_across_generations(store):
    folder = Shard("a.tar.parquet/b.tar", "", 1, "e")
    plan = claim_plan(store, [Shard("a.tar", "", 1, "e")])
    with pytest.raises(ConfigError, match="the output's file for the first would be the folder of the second"):
        extend_plan(store, plan, [folder])
    assert world.paths(store) == [FIRST]


def test_of_two_extensions_at_once_one_wins_and_the_other_is_told(local):
    claim_plan(local, SHARDS[:3])
    barrier = threading.Barrier(2)

    def meet(_, name):
        if name == "create":
            barrier.wait(10)

    def drive(shards):
        try:
            return extend(Interposed(local, before=meet), shards)
        except PlanExtended as err:
            return str(err)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(drive, [SHARDS[:5], [*SHARDS[:3], *SHARDS[5:8]]]))
    [message] = [result for result in results if isinstance(result, str)]
    [plan] = [result for result in results if not isinstance(result, str)]
    assert f"has just added generation 1 ({SECOND}) to the plan, {len(plan.shards) - 3} shards such as" in message
    assert "Run the same command again: it adds the shards that are still missing" in message
    assert read_plan(local) == plan
    assert set(extend(local, SHARDS).shards) == {shard.path for shard in SHARDS}


def test_an_extension_from_an_outdated_plan_adds_nothing(store):
    claim_plan(store, SHARDS[:3])
    outdated = claim_plan(store, SHARDS[:5])
    extend(store, SHARDS[:4])
    before = {path: store.get(path) for path in world.paths(store)}
    with pytest.raises(
        PlanExtended, match=r"generation 1 .* 1 shards such as photos/00003.tar; this run added none of"
    ):
        extend_plan(store, outdated, outdated.unplanned)
    assert {path: store.get(path) for path in world.paths(store)} == before


def test_an_extension_whose_answer_was_lost_is_its_own(store):
    claim_plan(store, SHARDS[:3])
    plan = extend(losing_answers(store, ConnectionError()), SHARDS[:5])
    assert plan == read_plan(store)


def test_a_torn_generation_is_refused(grown):
    whole = grown.get(SECOND)
    for length in range(0, len(whole), 7):
        grown.put(SECOND, whole[:length])
        with pytest.raises(StoreError, match=r"plan/00001\.parquet: damaged"):
            read_plan(grown)


def test_a_generation_that_is_missing_is_refused(grown):
    grown.delete([SECOND])
    with pytest.raises(StoreError, match=r"00002.parquet: follows generation 0, and plan/00001.parquet is missing"):
        read_plan(grown)
    grown.delete([FIRST])
    with pytest.raises(ConfigError, match="there is no plan"):
        read_plan(grown)


def test_a_generation_after_another_file_than_the_stored_one_is_refused(grown):
    other = encode_parquet(pa.table([["x"], ["x"], [1], ["e"]], schema=PLAN), {"joyfleet.schema_version": "2"})
    grown.put(FIRST, other)
    with pytest.raises(StoreError, match=r"00001.parquet: was written after .* plan.parquet has .*restore that file"):
        read_plan(grown)


def written(store, path, shards, before, **keys):
    """Put a generation with keys of its own."""
    rows = [{"shard": s.path, "url": s.url, "size": s.size, "etag": s.etag} for s in shards]
    metadata = {"schema_version": "2", "attempt": "a" * 32, "generation": "1", "predecessor": before.sha256, **keys}
    table = pa.Table.from_pylist(rows, schema=PLAN)
    store.put(path, encode_parquet(table, {f"joyfleet.{key}": value for key, value in metadata.items()}))


@pytest.mark.parametrize(
    ("shards", "keys", "error", "message"),
    [
        (SHARDS[3:5], {}, None, ""),
        (SHARDS[2:4], {}, StoreError, r"plans shard photos/00002.tar, which generation 0 has planned"),
        (SHARDS[3:5], {"generation": "2"}, StoreError, "damaged .it is generation 2, expected 1."),
        (SHARDS[3:5], {"schema_version": "3"}, OutputMismatch, "schema version '3', and this JoyFleet reads '2'"),
        (SHARDS[3:5], {"selection": '{"selection": {}, "end_rows": {}}'}, None, ""),
        (
            SHARDS[3:5],
            {"selection": "{}"},
            StoreError,
            r"damaged .joyfleet\.selection in the footer is malformed: '\{\}'",
        ),
    ],
)
def test_a_generation_of_another_kind_is_refused(store, shards, keys, error, message):
    before = claim_plan(store, SHARDS[:3]).generations[0]
    written(store, SECOND, shards, before, **keys)
    with pytest.raises(error, match=message) if error else contextlib.nullcontext():
        assert len(read_plan(store).shards) == 5


def test_other_files_beside_the_generations_are_ignored(grown):
    for name in ("plan/1.parquet", "plan/000001.parquet", "plan/00000.parquet", "plan/a/00003.parquet", "plan/x"):
        assert generation_of(name) is None
        grown.put(name, b"")
    assert len(read_plan(grown).generations) == 3
    assert generation_of(generation_path(123_456)) == 123_456


# What a process that is killed leaves.


def check_after_kill(store):
    """The next run sees the plan with or without the generation, whole, and can extend it."""
    stored = len(read_plan(store).shards)
    assert stored in (3, 5)
    assert list(extend(store, SHARDS[:5]).shards.values()) == SHARDS[:5]
    clean(store, world.RUN, read_plan(store))
    assert world.paths(store) == [FIRST, SECOND]


@pytest.mark.parametrize("num", range(1, 5))
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_extension_that_dies_at_a_call_to_the_store_leaves_a_whole_plan(store, num, when):
    claim_plan(store, SHARDS[:3])
    with contextlib.suppress(Crash):
        extend(dying(store, num, when, crash), SHARDS[:5])
    assert len(read_plan(store).shards) == (5 if (num, when) == (4, "after") else 3)
    check_after_kill(store)


def extend_and_die(url, num, when):
    extend(dying(open_store(url), num, when, sigkill), SHARDS[:5])


@pytest.mark.slow
def test_an_extension_killed_around_a_call_to_s3_leaves_a_whole_plan(s3):
    for num, when in itertools.product(range(1, 5), ("before", "after")):
        store = open_store(f"{s3.url}/{num}-{when}")
        claim_plan(store, SHARDS[:3])
        assert was_killed(extend_and_die, store.url, num, when)
        check_after_kill(store)


def extend_and_die_at_line(url, num):
    left = [num]

    def count(frame, event, _):
        if event == "line":
            left[0] -= 1
            if not left[0]:
                sigkill()
        return count

    sys.settrace(lambda frame, *_: count if frame.f_code.co_filename.startswith(OWN_CODE) else None)
    extend(open_store(url), SHARDS[:5])
    sys.settrace(None)


@pytest.mark.slow
def test_an_extension_killed_at_any_line_leaves_a_whole_plan(tmp_path):
    outcomes = set()
    for num in itertools.count(1, 9):
        store = open_store(f"{tmp_path}/{num}")
        claim_plan(store, SHARDS[:3])
        killed = was_killed(extend_and_die_at_line, store.url, num)
        outcomes.add((killed, len(read_plan(store).shards)))
        check_after_kill(store)
        if not killed:
            break
    assert outcomes == {(True, 3), (True, 5), (False, 5)}  # killed before, and after the generation had appeared


# Two processes.

ROUNDS = 20


def extend_in_rounds(url, offset, barrier, queue):
    """Extend the plan once a round, at the same time as another process, with other shards."""
    for number in range(ROUNDS):
        store = open_store(f"{url}/{number}")
        shards = SHARDS[:3] + SHARDS[3 + 3 * offset : 6 + 3 * offset]
        plan = claim_plan(store, shards)
        barrier.wait(60)
        try:
            extend_plan(store, plan, plan.unplanned)
        except PlanExtended as err:
            queue.put((number, offset, str(err)))
        else:
            queue.put((number, offset, ""))


def check_rounds(store):
    barrier, queue = CONTEXT.Barrier(2), CONTEXT.Queue()
    for number in range(ROUNDS):
        claim_plan(open_store(f"{store.url}/{number}"), SHARDS[:3])
    processes = [CONTEXT.Process(target=extend_in_rounds, args=(store.url, at, barrier, queue)) for at in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=120) for _ in range(2 * ROUNDS)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    for number in range(ROUNDS):
        [winner] = [offset for at, offset, message in results if at == number and not message]
        [message] = [message for at, _, message in results if at == number and message]
        added = SHARDS[3 + 3 * winner : 6 + 3 * winner]
        assert f"generation 1 ({SECOND}) to the plan, 3 shards such as {added[0].path}" in message
        round_store = open_store(f"{store.url}/{number}")
        assert list(read_plan(round_store).shards.values()) == SHARDS[:3] + added
        assert set(extend(round_store, SHARDS).shards) == {shard.path for shard in SHARDS}  # the loser's next run


@pytest.mark.slow
def test_of_two_processes_one_extends_the_plan_in_each_of_20_rounds_on_a_disk(local):
    check_rounds(local)


@pytest.mark.slow
def test_of_two_processes_one_extends_the_plan_in_each_of_20_rounds_on_s3(s3):
    check_rounds(s3)


def test_a_thousand_shards_are_added_to_thirty_thousand_without_reading_an_old_one(store):
    shards = [Shard(f"{number:06d}.tar", "", 1, "e") for number in range(31_000)]
    old, new = shards[:30_000], shards[30_000:]
    claim_plan(store, old)
    paths = [committed_path(shard.path) for shard in old]
    for path in paths:
        store.put(path, b"not even a file of captions")
    read = []

    class Recording(Interposed):
        def get(self, path):
            read.append(path)
            return super().get(path)

    calls = []
    recording = Recording(store, before=lambda _, name: calls.append(name))
    left = remaining(recording, extend(recording, shards))
    store.delete(paths)
    assert list(left.fragments) == [shard.path for shard in new]
    assert len(left.committed) == 30_000
    assert read == [FIRST]
    assert sorted(calls) == ["create", "exists", "get", *["list"] * 4]
