"""The metrics of a run: their values, and a dashboard and alerts that are queried in a real Prometheus."""

import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.engines import EngineStats
from pipeline.flow import progress_actor
from pipeline.flow.metrics import COUNTERS, GAUGES, Increments, MetricsInput, counter_values, gauge_values
from pipeline.flow.progress import Snapshot
from pipeline.flow.progress_actor import SILENT_S, Counts, Replica, ReplicaDetails, ReplicaReport
from pipeline.flow.replica_starts import Device
from pipeline.flow.run_result import RunResult
from pipeline.stages.captioning import CaptionStats
from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, start, write_job
from tests.gate import Gate
from tests.prometheus import OBSERVABILITY, binary, free_port, prometheus

SNAPSHOT = Snapshot(
    shards_done=3, shards=30, images_done=192, captions=384, captions_per_s=9.0,
    statuses={"ok": 380, "rejected": 3, "failed": 1}, bytes_done=50.0, bytes_total=1000, eta_s=60.0,
    replicas=2, replicas_starting=0, seconds=20.0,
)  # fmt: skip
STATS = CaptionStats(
    questions=400, repairs=16, prompt_tokens=300_000, caption_tokens=40_000, restarts=1,
    engine=EngineStats(requests_running=60, requests_waiting=4, kv_cache_used=0.5, prefix_tokens=1000, prefix_hits=700),
)  # fmt: skip
STATE = MetricsInput(
    snapshot=SNAPSHOT,
    counts=Counts(read=320, dispatched=256, staged=192, replicas=2, in_flight=64),
    details=ReplicaDetails(
        decode_s=2.5,
        replicas={
            "a": Replica(in_flight=64, up_s=30.0, stats=STATS),
            "b": Replica(in_flight=0, up_s=10.0, stats=CaptionStats()),
        },
    ),
    result=RunResult(shards_planned=30, shards_before=0, shards_committed=3, shards_lost=["x"], images_resumed=8),
    commits_under_way=1,
    gpus_per_replica=2.0,
)


def values(published):
    entries = [((name, *tags.values()), value) for name, tags, value in published]
    assert len(dict(entries)) == len(entries)
    return dict(entries)


def test_counters_are_the_sums_of_the_run():
    published = values(counter_values(STATE))
    assert [published["images", stage] for stage in ("read", "asked", "staged", "resumed")] == [320, 256, 192, 8]
    assert [published["captions", status] for status in ("ok", "rejected", "failed")] == [380, 3, 1]
    assert [published["shards", how] for how in ("committed", "lost", "quarantined")] == [3, 1, 0]
    assert (published["questions", "first", "a"], published["questions", "repair", "a"]) == (384, 16)
    assert (published["gpu_seconds", "a"], published["gpu_seconds", "b"]) == (60.0, 20.0)
    assert (published["prefix_tokens", "looked_up", "a"], published["prefix_tokens", "found", "a"]) == (1000, 700)


def test_a_sum_that_decreases_was_restarted_from_zero():
    increments = Increments()
    assert [increments.of("images", {"stage": "read"}, total) for total in (5, 8, 8, 2, 3)] == [5, 3, 0, 2, 1]
    assert increments.of("images", {"stage": "asked"}, 4) == 4


def test_a_silent_replica_is_not_counted_until_its_next_message(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress_actor.time, "monotonic", lambda: now)
    actor = progress_actor._ProgressActor()
    actor.replica_up("a")
    actor.replica_up("b")
    actor.heartbeat("b", ReplicaReport(num_asked=64, stats=STATS))
    now += SILENT_S - 1
    actor.heartbeat("a", ReplicaReport(stats=STATS))
    assert (actor.counts().replicas, actor.counts().in_flight) == (2, 64)
    now += 2
    assert (actor.counts().replicas, actor.counts().in_flight) == (1, 0)
    assert actor.detail().replicas == {"a": Replica(in_flight=0, up_s=SILENT_S + 1, stats=STATS)}
    actor.heartbeat("b", ReplicaReport(num_asked=64, num_staged=64, stats=STATS))
    assert (actor.counts().replicas, actor.counts().staged) == (2, 64)


def test_counts_are_the_sums_of_what_each_process_of_a_replica_reports():
    actor = progress_actor._ProgressActor()
    actor.heartbeat("a", ReplicaReport(num_asked=64, num_staged=32, stats=STATS))
    actor.heartbeat("a", ReplicaReport(num_asked=96, num_staged=64, stats=STATS))
    actor.replica_starting("a", DEVICE)  # its process died with 32 images in flight; Ray has started it again
    actor.heartbeat("a", ReplicaReport(num_asked=32, num_staged=0, stats=STATS))
    counts = actor.counts()
    assert (counts.dispatched, counts.staged, counts.in_flight) == (128, 64, 32)


def test_a_run_drains_until_every_replica_has_learned_of_it():
    actor = progress_actor._ProgressActor()
    report = ReplicaReport(stats=STATS)
    assert [actor.heartbeat(replica, report) for replica in "ab"] == [False, False]
    assert actor.counts().not_stopped == 0
    actor.stop()
    assert actor.counts().not_stopped == 2
    assert actor.heartbeat("a", report)
    actor.heartbeat("a", replace(report, stopped=True))
    assert actor.counts().not_stopped == 1


DEVICE = Device("node", (0,), 1.0, "host")


def test_a_replica_is_starting_until_its_engine_is_up():
    actor = progress_actor._ProgressActor()
    actor.replica_starting("a", DEVICE)
    actor.replica_starting("b", DEVICE)
    actor.replica_up("b")
    assert (actor.counts().replicas, actor.counts().replicas_starting) == (1, 1)


def test_gauges_are_the_queues_and_states_of_now():
    published = values(gauge_values(STATE))
    assert (published["queue_images", "decoded"], published["queue_images", "engines"]) == (64, 64)
    assert (published["replicas", "up"], published["replicas", "idle"]) == (2, 1)
    assert (published["requests", "running", "a"], published["kv_cache_used", "a"]) == (60, 0.5)
    assert ("eta_seconds",) not in values(gauge_values(replace(STATE, snapshot=replace(SNAPSHOT, eta_s=None))))


def test_every_published_metric_is_declared_with_its_tags():
    for declared, published in ((COUNTERS, counter_values(STATE)), (GAUGES, gauge_values(STATE))):
        names = set()
        for name, tags, _ in published:
            assert tuple(tags) == declared[name][1], name
            names.add(name)
        assert names == set(declared)


def test_the_page_names_every_metric_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    table = page.split("| metric | tags | what |")[1].split("\n\n")[0]
    named = dict(re.findall(r"^\| `ray_joyfleet_(\w+)` \|([^|]*)\|", table, re.MULTILINE))
    declared = {f"{name}_total": tags for name, (_, tags) in COUNTERS.items()}
    declared |= {name: tags for name, (_, tags) in GAUGES.items()} | {"commit_seconds": ()}
    assert {name: tuple(re.findall(r"`(\w+)`", tags)) for name, tags in named.items()} == declared


def test_the_alerts_fire_when_they_should_and_only_then():
    tool = binary("promtool")
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([tool, *words], cwd=OBSERVABILITY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> dict[str, str]:
    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    queries = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels for target in panel["targets"]}
    return {name: query.replace("$__rate_interval", "20s").replace("$output", ".*") for name, query in queries.items()}


@pytest.mark.long
def test_every_panel_of_the_dashboard_has_data_while_a_job_runs(tmp_path):
    binary("prometheus")
    draw_dataset(tmp_path / "in", num_images=4000, seed=3, shard_rows=100)
    port = free_port()
    job = write_job(
        tmp_path, tmp_path / "in", tmp_path / "out",
        captions=[{"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "booru-tags"}],
        engine={"kind": "vllm", "batch_images": 16, "max_num_seqs": 16},
        cluster={"metrics_port": port, "stall_timeout_s": 900},
    )  # fmt: skip
    gate = Gate(tmp_path / "gate")
    gate.let(40 * 7 - 1)  # all batches but the last of one shard: the run goes on until all is seen
    process = start(tmp_path, "caption", job, RAY_metrics_report_interval_ms="1000", **gate.environment)
    try:
        with prometheus(tmp_path, f"127.0.0.1:{port}") as server:
            missing, until = expressions(), time.monotonic() + 900
            while missing and time.monotonic() < until and process.poll() is None:
                time.sleep(1)
                missing = {name: query for name, query in missing.items() if not _has_data(server.query(query))}
            assert process.poll() is None, finish(process)
            assert not missing
            rules = [rule for group in server.get("/api/v1/rules")["groups"] for rule in group["rules"]]
            written = yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"][0]["rules"]
            assert [rule["name"] for rule in rules] == [rule["alert"] for rule in written]
            assert {rule["health"] for rule in rules} == {"ok"}
            assert not [rule["name"] for rule in rules if rule["state"] == "firing"]
    finally:
        gate.open()
        process.send_signal(signal.SIGTERM)
        finish(process)


def _has_data(result) -> bool:
    return any(series["value"][1] != "NaN" for series in result)
