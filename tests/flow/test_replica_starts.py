"""Replicas that cannot start: others go on, the start is tried elsewhere, and a run without any ends and says why."""

from collections import Counter

import pytest

from pipeline.errors import EngineDead
from pipeline.flow.progress_actor import Counts
from pipeline.flow.replica_starts import TRIES_PER_DEVICE, Device, ReplicaStarts, StartLog
from pipeline.flow.watchdog import StartMonitor, stalled_stage
from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import HOOKS, Gate
from tests.nodes import nodes
from tests.outputs import committed_rows, expected, identities

GOOD, BAD = (Device(node, (0,), 1.0, "host") for node in ("good", "bad"))
BROKEN = {"JFTEST_BROKEN": "L4"}


def fail(log, replica, device, times):
    given_up = []
    for _ in range(times):
        assert log.begin(replica, device)
        given_up.append(log.fail(replica, device, "why"))
    return given_up


def test_a_device_is_given_up_after_some_failures_in_a_row():
    log = StartLog()
    assert fail(log, "a", BAD, TRIES_PER_DEVICE - 1) == [False] * (TRIES_PER_DEVICE - 1)
    assert log.begin("a", BAD)
    log.succeed("a")
    assert fail(log, "a", BAD, TRIES_PER_DEVICE)[-1] is True
    assert log.begin("b", BAD) is False
    assert log.begin("b", GOOD) is True


def test_a_run_is_hopeless_when_nothing_is_left_to_try():
    log = StartLog()
    fail(log, "a", BAD, TRIES_PER_DEVICE - 1)
    assert not log.is_hopeless(lambda given_up: False)  # another try is due
    fail(log, "a", BAD, 1)
    assert log.is_hopeless(lambda given_up: False)
    assert not log.is_hopeless(lambda given_up: True)  # another device is free
    assert log.begin("b", GOOD)
    assert not log.is_hopeless(lambda given_up: False)  # a start is under way
    log.fail("b", GOOD, "why")
    fail(log, "b", GOOD, TRIES_PER_DEVICE - 1)
    assert not log.is_hopeless(lambda given_up: True)  # neither has tried two devices
    for replica in ("a", "b"):
        fail(log, replica, Device(f"next of {replica}", (0,), 1.0, "host"), TRIES_PER_DEVICE)
    assert log.is_hopeless(lambda given_up: True)


def test_a_hopeless_run_is_ended_and_a_failed_start_is_reported_once(caplog):
    monitor = StartMonitor()
    starts = ReplicaStarts(failed=1, last="host, GPU 3: no driver")
    for _ in range(3):
        monitor.check(starts)
    assert caplog.text.count("a replica did not start (failure 1); Ray starts it again. host, GPU 3: no driver") == 1
    assert "1 starts failed, the last one, host, GPU 3: no driver" in stalled_stage(Counts(starts=starts), 0)
    with pytest.raises(EngineDead, match=r"no replica can start \(6 starts failed\); the last one, host, GPU 3: dead"):
        monitor.check(ReplicaStarts(failed=6, last="host, GPU 3: dead", hopeless=True))


def logged(folder, words):
    return any(words in file.read_text() for file in (folder / "logs").glob("*.log"))


def job_of(tmp_path, replicas):
    draw_dataset(tmp_path / "in", num_images=120, seed=2, shard_rows=30)
    engine = {"batches_in_flight": 2, "replicas": replicas, "num_gpus": 1}
    return write_job(tmp_path, tmp_path / "in", tmp_path / "out", own_ray=False, engine=engine)


@pytest.mark.long
def test_a_node_with_a_broken_gpu_costs_no_row_and_its_replica_starts_elsewhere(tmp_path):
    gate = Gate(tmp_path / "gate")
    job = job_of(tmp_path, 2)
    with nodes(0, **gate.environment, **BROKEN) as cluster:
        for kind in ("L4", "A100"):
            assert cluster.tell(f"add {kind}") == "added"
        process = start(tmp_path, "caption", job, **cluster.environment, **gate.environment)
        wait_until(lambda: len(gate.holders()) == 1, process, "a replica with batches")
        wait_until(lambda: logged(tmp_path, "(failure 3)"), process, "the broken GPU to be given up")
        gate.let(4)
        wait_until(lambda: not gate.permits, process, "work of the other replica")
        assert cluster.tell("add A100") == "added"
        wait_until(lambda: len(gate.holders()) == 2, process, "the second replica on the new node")
        gate.open()
        done = finish(process)
    assert done.code == 0, done
    assert identities(committed_rows(tmp_path / "out")) == Counter(expected(tmp_path / "in", 120))
    assert not logged(tmp_path, "(failure 4)")


@pytest.mark.long
def test_a_run_whose_replicas_cannot_start_anywhere_ends_with_the_reason(tmp_path):
    job = job_of(tmp_path, 2)
    with nodes(0, **HOOKS, **BROKEN) as cluster:
        for _ in range(2):
            assert cluster.tell("add L4") == "added"
        done = run(tmp_path, "caption", job, **cluster.environment)
    assert done.code == 1, done
    assert "no replica can start (6 starts failed); the last one, " in done.err
    assert ", GPU 0: the engine does not start: GPU has fallen off the bus" in done.err
    assert committed_rows(tmp_path / "out") == []
