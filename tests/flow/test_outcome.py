"""A run that produced nothing is no success."""

from types import SimpleNamespace

import pytest

from pipeline.errors import NothingDone
from pipeline.flow.driver import RunResult, _refuse_nothing, committed_elsewhere
from pipeline.flow.shard_task import ShardTask
from pipeline.ledger.shard_plan import Plan
from pipeline.storage import open_store
from tests.ledger.world import NUM_IMAGES, OTHER, SHARD, commit, stage

PREPARED = SimpleNamespace(job=SimpleNamespace(output="out"))


def outcome(**facts):
    return RunResult(**{"shards_planned": 2, "shards_before": 0, **facts})


@pytest.mark.parametrize(
    "facts",
    [
        {"images": 3, "statuses": {"ok": 0, "rejected": 1, "failed": 2}},
        {"shards_quarantined": {"a.tar": "unreadable", "b.tar": "unreadable"}},
    ],
)
def test_images_without_one_caption_are_a_failure(facts):
    with pytest.raises(NothingDone, match="not one caption is ok"):
        _refuse_nothing(PREPARED, outcome(**facts))


@pytest.mark.parametrize(
    "facts",
    [
        {"images": 0},  # a source of empty shards
        {"images": 3, "statuses": {"ok": 1, "rejected": 1, "failed": 1}},
        {"images": 3, "shards_before": 1, "statuses": {"ok": 0, "rejected": 0, "failed": 3}},
        {"shards_lost": ["a.tar"]},
    ],
)
def test_anything_else_is_not(facts):
    _refuse_nothing(PREPARED, outcome(**facts))


def test_a_shard_that_another_run_committed_is_lost_and_not_unfinished(tmp_path):
    store = open_store(f"{tmp_path}/out")
    commit(store, [stage(store, range(NUM_IMAGES))])
    works = [ShardTask(SHARD, ()), ShardTask(OTHER, ())]
    prepared = SimpleNamespace(store=store, plan=Plan({work.shard.path: work.shard for work in works}), works=works)
    assert committed_elsewhere(prepared, {SHARD.path, OTHER.path}) == [SHARD.path]
    assert committed_elsewhere(prepared, {OTHER.path}) == []
    retry = [ShardTask(SHARD, (), SimpleNamespace())]
    assert committed_elsewhere(SimpleNamespace(store=store, plan=prepared.plan, works=retry), {SHARD.path}) == []
