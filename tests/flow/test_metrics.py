"""What a run publishes: figures that add up, and a dashboard and alerts that a real Prometheus answers."""

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
from pipeline.flow.driver import RunResult
from pipeline.flow.metrics import COUNTERS, GAUGES, Increments, MetricsInput, counter_values, gauge_values
from pipeline.flow.progress import Snapshot
from pipeline.flow.progress_actor import SILENT_S, Counts, Replica, ReplicaDetails
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
FACTS = MetricsInput(
    snapshot=SNAPSHOT,
    counts=Counts(read=320, asked=256, staged=192, replicas=2, in_flight=64),
    detail=ReplicaDetails(
        decode_s=2.5,
        replicas={
            "a": Replica(in_flight=64, up_s=30.0, stats=STATS),
            "b": Replica(in_flight=0, up_s=10.0, stats=CaptionStats()),
        },
    ),
    outcome=RunResult(shards_planned=30, shards_before=0, shards_committed=3, shards_lost=["x"], images_resumed=8),
    commits_under_way=1,
    gpus_per_replica=2.0,
)


def values(published):
    found = [(name, *tags.values(), value) for name, tags, value in published]
    assert len({one[:-1] for one in found}) == len(found)
    return {one[:-1]: one[-1] for one in found}


def test_counters_are_what_the_run_did():
    found = values(counter_values(FACTS))
    assert [found["images", stage] for stage in ("read", "asked", "staged", "resumed")] == [320, 256, 192, 8]
    assert [found["captions", status] for status in ("ok", "rejected", "failed")] == [380, 3, 1]
    assert [found["shards", how] for how in ("committed", "lost", "quarantined")] == [3, 1, 0]
    assert (found["questions", "first", "a"], found["questions", "repair", "a"]) == (384, 16)
    assert (found["gpu_seconds", "a"], found["gpu_seconds", "b"]) == (60.0, 20.0)
    assert (found["prefix_tokens", "looked_up", "a"], found["prefix_tokens", "found", "a"]) == (1000, 700)


def test_a_sum_that_falls_back_was_begun_anew():
    increments = Increments()
    assert [increments.of("images", {"stage": "read"}, total) for total in (5, 8, 8, 2, 3)] == [5, 3, 0, 2, 1]
    assert increments.of("images", {"stage": "asked"}, 4) == 4


def test_a_replica_that_falls_silent_is_gone_and_counts_again_when_it_speaks(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress_actor.time, "monotonic", lambda: now)
    kept = progress_actor._ProgressActor()
    kept.replica_up("a")
    kept.replica_up("b")
    kept.begin_batch("b", 64)
    now += SILENT_S - 1
    kept.beat("a", STATS)
    assert (kept.counts().replicas, kept.counts().in_flight) == (2, 64)
    now += 2
    assert (kept.counts().replicas, kept.counts().in_flight) == (1, 0)
    assert kept.detail().replicas == {"a": Replica(in_flight=0, up_s=SILENT_S + 1, stats=STATS)}
    kept.end_batch("b", 64)
    assert (kept.counts().replicas, kept.counts().staged) == (2, 64)


def test_a_replica_is_starting_until_its_engine_is_up():
    kept = progress_actor._ProgressActor()
    kept.replica_starting("a")
    kept.replica_starting("b")
    kept.replica_up("b")
    assert (kept.counts().replicas, kept.counts().replicas_starting) == (1, 1)


def test_gauges_are_what_waits_now():
    found = values(gauge_values(FACTS))
    assert (found["queue_images", "decoded"], found["queue_images", "engines"]) == (64, 64)
    assert (found["replicas", "up"], found["replicas", "idle"]) == (2, 1)
    assert (found["requests", "running", "a"], found["kv_cache_used", "a"]) == (60, 0.5)
    assert ("eta_seconds",) not in values(gauge_values(replace(FACTS, snapshot=replace(SNAPSHOT, eta_s=None))))


def test_all_that_is_published_is_declared_with_its_tags():
    for declared, published in ((COUNTERS, counter_values(FACTS)), (GAUGES, gauge_values(FACTS))):
        seen = set()
        for name, tags, _ in published:
            assert tuple(tags) == declared[name][1], name
            seen.add(name)
        assert seen == set(declared)


def test_the_page_names_every_metric_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    table = page.split("| metric | tags | what |")[1].split("\n\n")[0]
    named = dict(re.findall(r"^\| `ray_joyfleet_(\w+)` \|([^|]*)\|", table, re.MULTILINE))
    there = {f"{name}_total": tags for name, (_, tags) in COUNTERS.items()}
    there |= {name: tags for name, (_, tags) in GAUGES.items()} | {"commit_seconds": ()}
    assert {name: tuple(re.findall(r"`(\w+)`", tags)) for name, tags in named.items()} == there


def test_the_alerts_fire_when_they_should_and_only_then():
    tool = binary("promtool")
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([tool, *words], cwd=OBSERVABILITY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> dict[str, str]:
    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels for target in panel["targets"]}
    return {name: one.replace("$__rate_interval", "20s").replace("$output", ".*") for name, one in found.items()}


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
                missing = {name: one for name, one in missing.items() if not _has_data(server.query(one))}
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
