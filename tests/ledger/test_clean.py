from dataclasses import replace

from pipeline.ledger.clean import clean
from pipeline.ledger.layout import fragment_path
from pipeline.ledger.plan import Plan
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from tests.ledger.world import NUM_IMAGES, OTHER, RUN, SHARD, commit, paths, stage

PLAN = Plan({SHARD.path: SHARD, OTHER.path: OTHER})


def test_leftovers_go_and_all_else_stays(local):
    commit(local, [stage(local, range(NUM_IMAGES))])
    local.put("captions/not in the plan.tar.parquet", b"")
    local.put("captions/.odd", b"")
    local.put("report/index.html", b"")
    local.put("run.json", b"{}")
    record = Quarantined(shard=OTHER.path, message="m", attempts=1, time="t", versions={})
    put_quarantine(local, record)
    good = stage(local, [3, 4], shard=OTHER)
    kept = paths(local)
    torn = fragment_path(OTHER.path, 0, "0" * 32)
    local.put(torn, local.get(good)[:-5])
    leftovers = [
        ".tmp/of-a-killed-writer",
        stage(local, [0]),
        stage(local, [0], shard=OTHER, run=replace(RUN, recipe="recipe-2")),
        stage(local, [0], shard=replace(OTHER, etag="of another time")),
        stage(local, [0], shard=replace(OTHER, path="in no plan.tar")),
        "staging/.probe-1",
        torn,
    ]
    for path in (".tmp/of-a-killed-writer", "staging/.probe-1"):
        local.put(path, b"")
    everything = paths(local)
    assert clean(local, RUN, PLAN, dry_run=True) == sorted(leftovers)
    assert paths(local) == everything
    assert clean(local, RUN, PLAN) == sorted(leftovers)
    assert paths(local) == kept
    assert clean(local, RUN, PLAN) == []


def test_an_empty_output_is_clean(store):
    assert clean(store, RUN, PLAN) == []
