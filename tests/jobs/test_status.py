"""What `status` says of an output, from its storage alone."""

import json
from dataclasses import replace
from types import SimpleNamespace

from click.testing import CliRunner

from jobs.commands import cli
from jobs.status import rates, render
from pipeline.config import parse_job
from pipeline.ledger.commit import commit_shard
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.ledger.run_events import RunLog
from pipeline.ledger.run_record import claim_run
from pipeline.ledger.shard_plan import claim_plan
from pipeline.storage import open_store
from schemas.run_event import EventType
from schemas.shard import Shard
from tests.ledger.test_run_events import ABOUT, MOMENT
from tests.ledger.world import NUM_IMAGES, OTHER, RUN, SHARD, stage

THIRD, FOURTH = (Shard(f"photos/{n}.tar", "", 500, f"etag-{n}") for n in (3, 4))


RECIPE = SimpleNamespace(fingerprint=RUN.recipe, fields={})


def make_output(folder):
    store = open_store(str(folder))
    job = parse_job(
        {
            "source": "in",
            "output": str(folder),
            "model": "standin",
            "captions": [{"slot": slot, "mode": "descriptive"} for slot in RUN.slots],
        }
    )
    about = {"job": job.model_dump(mode="json"), "slots": list(RUN.slots), "versions": dict(RUN.versions)}
    claim_run(store, RECIPE, about)
    claim_plan(store, [SHARD, OTHER, THIRD, FOURTH])
    commit_shard(store, RUN, SHARD, NUM_IMAGES, [stage(store, range(NUM_IMAGES))])
    stage(store, range(4), OTHER)
    put_quarantine(store, Quarantined(shard=THIRD.path, message="0 bytes", attempts=1, time="2026-11-20", versions={}))
    return store


def test_status_names_every_shard_and_every_run(tmp_path):
    store = make_output(tmp_path)
    ended, alive, killed = (RunLog(store, ABOUT, every_s=every) for every in (60, 60, 0))
    for number, log in enumerate((ended, alive, killed)):
        log.path = f"report/runs/2026112{number}T140000Z-{log.run_id}.jsonl"
        log.start()
    alive.heartbeat(replace(MOMENT, seconds=1.0))
    alive._writer.join()
    ended.heartbeat(MOMENT)
    ended.end(EventType.FAIL, 1, "the disk is full")

    done = CliRunner().invoke(cli, ["status", str(tmp_path), "--json"])
    assert done.exit_code == 0, done
    seen = json.loads(done.stdout)
    assert seen["shards"] == {"planned": 4, "committed": 1, "left": 2, "partly_staged": 1, "quarantined": 1}
    assert seen["bytes"] == {"planned": 1234 + 99 + 500 + 500, "committed": 1234}
    assert seen["fragments_staged"] == 1
    assert seen["quarantine"] == {THIRD.path: "0 bytes"}
    assert [run["state"] for run in seen["runs"]] == ["fail", "running", "silent"]
    assert (seen["runs"][0]["exit_code"], seen["runs"][0]["message"]) == (1, "the disk is full")
    assert 500 < seen["runs"][1]["eta_s"] <= 540

    text = CliRunner().invoke(cli, ["status", str(tmp_path)]).stdout
    for expected in (
        "committed   1, 52.9% of the bytes",
        "left        2, of which 1 are partly staged (1 fragments)",
        "photos/3.tar: 0 bytes",
        "failed 0:00:0",
        "exit code 1: the disk is full",
        "running, last heartbeat 0:00:0",
        "replicas 2  10.0/s  ETA 0:0",
        "no heartbeat for 0:00:0",
    ):
        assert expected in text, expected


def test_status_of_an_output_without_run_events(tmp_path):
    make_output(tmp_path)
    assert "run  " not in CliRunner().invoke(cli, ["status", str(tmp_path)]).stdout


def test_rates_are_those_between_two_points():
    assert rates(((10.0, 100, 0.0), (20.0, 400, 0.0), (20.0, 400, 0.0))) == [(10.0, 10.0), (20.0, 30.0)]
    assert rates(()) == []


def test_the_rate_over_time_is_drawn(tmp_path):
    store = make_output(tmp_path)
    log = RunLog(store, ABOUT)
    for second in range(1, 4):
        log._add_point(replace(MOMENT, seconds=float(second), captions=second**2))
    log.end(EventType.COMPLETE, 0, None)
    from jobs.status import read_status

    assert "captions/s ▂▅█ (highest 5.0)" in render(read_status(str(tmp_path)))


def test_skipped_rows_are_listed_by_condition(tmp_path):
    store = make_output(tmp_path)
    log = RunLog(store, ABOUT)
    log.start()
    log.heartbeat(replace(MOMENT, skipped={"source.limit: 5": 7, "source.where.width: {min: 64}": 1200}))
    log.end(EventType.COMPLETE, 0, None)
    text = CliRunner().invoke(cli, ["status", str(tmp_path)]).stdout
    lines = [line.strip() for line in text.splitlines() if " rows by " in line]
    assert lines == ["skipped 1,200 rows by source.where.width: {min: 64}", "skipped 7 rows by source.limit: 5"]
