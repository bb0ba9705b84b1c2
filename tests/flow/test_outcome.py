"""The end of a run: without any ok caption it is a failure; shards that another run committed are not unfinished."""

from types import SimpleNamespace

import pytest

from pipeline.errors import NothingDone
from pipeline.flow.driver import _refuse_nothing, committed_elsewhere
from pipeline.flow.run_result import RunResult
from pipeline.flow.shard_task import ShardTask, may_take_over
from pipeline.ledger.shard_plan import Plan
from pipeline.storage import open_store
from tests.ledger.world import NUM_IMAGES, OTHER, SHARD, commit, stage

PREPARED = SimpleNamespace(job=SimpleNamespace(output="out"))


def result_of(**fields):
    return RunResult(**{"shards_planned": 2, "shards_before": 0, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"images": 3, "statuses": {"ok": 0, "rejected": 1, "failed": 2}},
        {"shards_quarantined": {"a.tar": "unreadable", "b.tar": "unreadable"}},
    ],
)
def test_a_run_without_an_ok_caption_fails(fields):
    with pytest.raises(NothingDone, match="no caption is ok"):
        _refuse_nothing(PREPARED, result_of(**fields))


def test_the_message_says_which_condition_skipped_how_many_rows():
    statuses = {"ok": 0, "rejected": 0, "failed": 1, "skipped": 5}
    skipped = {"source.limit: 1": 2, "source.where.width: {min: 9}": 3}
    with pytest.raises(
        NothingDone,
        match=r"1 failed, 5 skipped; 3 rows skipped by source\.where\.width: \{min: 9\}; 2 rows skipped by source\."
        r"limit: 1; 0 shards in quarantine",
    ):
        _refuse_nothing(PREPARED, result_of(images=6, statuses=statuses, skipped=skipped))


@pytest.mark.parametrize(
    "fields",
    [
        {"images": 0},  # a source of empty shards
        {"images": 3, "statuses": {"ok": 1, "rejected": 1, "failed": 1}},
        {"images": 3, "shards_before": 1, "statuses": {"ok": 0, "rejected": 0, "failed": 3}},
        {"shards_lost": ["a.tar"]},
    ],
)
def test_any_other_run_does_not_fail(fields):
    _refuse_nothing(PREPARED, result_of(**fields))


def test_a_shard_that_another_run_committed_is_not_unfinished(tmp_path):
    store = open_store(f"{tmp_path}/out")
    commit(store, [stage(store, range(NUM_IMAGES))])
    tasks = [ShardTask(SHARD, ()), ShardTask(OTHER, ())]
    prepared = SimpleNamespace(store=store, plan=Plan({task.shard.path: task.shard for task in tasks}), tasks=tasks)
    assert committed_elsewhere(prepared, {SHARD.path, OTHER.path}) == [SHARD.path]
    assert committed_elsewhere(prepared, {OTHER.path}) == []
    retry = [ShardTask(SHARD, (), SimpleNamespace())]
    assert committed_elsewhere(SimpleNamespace(store=store, plan=prepared.plan, tasks=retry), {SHARD.path}) == []


def test_a_restarted_replica_takes_over_no_staging_in_a_retry():
    task, retried = ShardTask(SHARD, ()), ShardTask(OTHER, (), SimpleNamespace())
    assert may_take_over([task])
    assert not may_take_over([retried])
    assert not may_take_over([task, retried])
