"""What a run tells: events that OpenLineage's spec allows, and a state that a reader of the output alone can name."""

import json
import re
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from pipeline.errors import StoreError
from pipeline.ledger.run_events import RunInfo, RunLog, read_runs
from pipeline.storage import open_store
from schemas.run_event import EventType, RunProgress

ABOUT = RunInfo(
    sources=("s3://bucket/photos/*.tar", "local/folder", "gs://other"),
    source_bytes=1234,
    shards=30,
    recipe="recipe-1",
    versions={"joyfleet": "0.1.0", "ray": "2.60.0"},
)
MOMENT = RunProgress(
    seconds=60.0, shards=30, shards_done=3, shards_quarantined=1, shards_lost=0, images=300, captions=600,
    statuses={"ok": 590, "rejected": 8, "failed": 2}, bytes_done=99.5, bytes_total=1000, captions_per_s=10.0,
    eta_s=540.0, replicas=2,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def lines(store, log):
    return [json.loads(line) for line in store.get(log.path).splitlines()]


def check_event(event):
    """RunEvent of spec 2-0-2 (OpenLineage/OpenLineage, spec/OpenLineage.json): required fields and their formats."""
    assert {"eventTime", "producer", "schemaURL", "run", "job"} <= set(event)
    assert set(event) <= {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"}
    assert event["eventType"] in {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert str(UUID(event["run"]["runId"])) == event["run"]["runId"]
    assert set(event["run"]) <= {"runId", "facets"}
    assert event["job"]["namespace"]
    assert event["job"]["name"]
    for dataset in (*event["inputs"], *event["outputs"]):
        assert dataset["namespace"]
        assert dataset["name"]
        assert set(dataset) <= {"namespace", "name", "facets", "inputFacets", "outputFacets"}
    facets = [*event["run"]["facets"].values()]
    facets += [facet for item in event["inputs"] for facet in item.get("inputFacets", {}).values()]
    facets += [facet for item in event["outputs"] for facet in item.get("outputFacets", {}).values()]
    for uri in (event["producer"], event["schemaURL"], *(facet[key] for facet in facets for key in BASE_FACET)):
        assert urlsplit(uri).scheme
        assert re.fullmatch(r"\S+", uri)


BASE_FACET = ("_producer", "_schemaURL")


@pytest.mark.parametrize("how", [EventType.COMPLETE, EventType.ABORT, EventType.FAIL])
def test_a_run_leaves_a_start_its_last_heartbeat_and_its_end_as_openlineage_has_them(store, how):
    log = RunLog(store, ABOUT, every_s=0)
    log.start()
    assert [event["eventType"] for event in lines(store, log)] == ["START"]
    for second in range(3):
        log.heartbeat(replace(MOMENT, seconds=float(second)))
        log._writer.join()
    log.end(how, 4, "stopped")
    events = lines(store, log)
    assert [event["eventType"] for event in events] == ["START", "RUNNING", how]
    for event in events:
        check_event(event)
    assert len({event["run"]["runId"] for event in events}) == 1
    assert [(item["namespace"], item["name"]) for item in events[0]["inputs"]][::2] == [
        ("s3://bucket", "photos/*.tar"),
        ("gs://other", "/"),
    ]
    assert events[0]["inputs"][0]["inputFacets"]["inputStatistics"]["fileCount"] == 30
    last = events[-1]
    assert last["run"]["facets"]["joyfleet"]["moment"] == asdict(replace(MOMENT, seconds=2.0))
    assert last["run"]["facets"]["errorMessage"]["message"] == "stopped"
    assert last["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 600


def test_heartbeats_keep_their_interval(store):
    log = RunLog(store, ABOUT, every_s=3600)
    log.start()
    for captions in (100, 200, 300):
        log.heartbeat(replace(MOMENT, captions=captions))
        log._writer.join()
    assert read_runs(store, newest=1)[0].progress.captions == 100


def test_a_killed_run_becomes_silent_and_an_ended_one_does_not(store):
    log = RunLog(store, ABOUT, every_s=60)
    log.start()
    now = datetime.now(UTC)
    (status,) = read_runs(store, newest=5)
    assert (status.state(now), status.progress) == ("running", None)
    assert status.state(now + timedelta(seconds=179)) == "running"
    assert status.state(now + timedelta(seconds=181)) == "silent"
    log.heartbeat(MOMENT)
    log.end(EventType.ABORT, 4, "stopped")
    (status,) = read_runs(store, newest=5)
    assert (status.state(now + timedelta(days=9)), status.exit_code, status.message) == ("abort", 4, "stopped")
    assert status.progress == MOMENT
    assert status.points == ((60.0, 600, 99.5),)


def test_the_file_of_a_run_of_weeks_stays_small(store):
    log = RunLog(store, ABOUT, every_s=0)
    for minute in range(20_000):
        log._add_point(replace(MOMENT, seconds=60.0 * minute, captions=600 * minute))
    log.heartbeat(replace(MOMENT, seconds=60.0 * 20_000, captions=600 * 20_000))
    log._writer.join()
    assert len(store.get(log.path)) < 10_000
    (status,) = read_runs(store, newest=5)
    assert status.points[-1][:2] == (1_200_000.0, 12_000_000)
    assert {end[1] / end[0] for end in status.points if end[0]} == {10.0}


def test_only_the_newest_runs_are_read_and_other_files_are_let_be(store):
    logs = [RunLog(store, ABOUT) for _ in range(3)]
    for day, log in enumerate(logs):
        log.path = f"report/runs/2026112{day}T140000Z-{log.run_id}.jsonl"
        log.start()
    store.put("report/runs/notes.txt", b"mine")
    assert [run.run_id for run in read_runs(store, newest=2)] == [log.run_id for log in logs[1:]]
    assert len(read_runs(store, newest=9)) == 3


def test_a_damaged_file_is_named(store):
    store.put("report/runs/20261120T140000Z-00000000-0000-0000-0000-000000000000.jsonl", b"{}\n")
    with pytest.raises(StoreError, match=r"20261120T140000Z.*not a file of run events.*remove it"):
        read_runs(store, newest=5)


class Refusing:
    url = "memory://refusing"

    def put(self, path, data):
        raise StoreError("no")


def test_a_store_that_refuses_ends_no_run(caplog):
    log = RunLog(Refusing(), ABOUT)
    log.start()
    log.end(EventType.COMPLETE, 0, None)
    assert "cannot be written; the run continues: no" in caplog.text


def test_a_heartbeat_in_flight_never_overwrites_the_end_event(store, monkeypatch):
    slow = threading.Event()
    put = store.put

    def late(path, data):
        if b"RUNNING" in data and b"COMPLETE" not in data:
            slow.wait(5)
        put(path, data)

    monkeypatch.setattr(type(store), "put", lambda self, path, data: late(path, data))
    log = RunLog(store, ABOUT, every_s=0)
    log.start()
    log.heartbeat(MOMENT)
    threading.Timer(0.2, slow.set).start()
    log.end(EventType.COMPLETE, 0, None)
    assert read_runs(store, newest=1)[0].last_event is EventType.COMPLETE
