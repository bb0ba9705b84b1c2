"""A local Ray that does not start in time is tried again, after the processes of the failed try are killed."""

import logging
import multiprocessing
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from threading import Event

import psutil
import pytest

from pipeline.config import ClusterConfig, LogFormat
from pipeline.errors import PipelineError
from pipeline.flow import cluster


@pytest.fixture
def failing(monkeypatch):
    """`ray.init` fails the given number of times, each time with a process left behind."""
    left = []

    def fail(times, error):
        def init(**_):
            if len(left) == times:
                return "context"
            left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
            raise error

        monkeypatch.setattr(cluster.ray, "init", init)
        return left

    yield fail
    for process in left:
        process.kill()
        process.wait()


TIMED_OUT = Exception("The current node timed out during startup.")


def test_a_start_of_ray_that_timed_out_is_retried_after_its_processes_were_killed(failing, monkeypatch):
    left = failing(2, TIMED_OUT)
    assert cluster._init({"address": cluster.LOCAL_RAY}, "text") == "context"
    assert [psutil.pid_exists(process.pid) for process in left] == [False, False]


def test_the_decoder_of_a_plan_survives_a_try_that_timed_out(monkeypatch):
    decoders = []

    def init(**_):
        if decoders:
            return "context"
        decoders.append(multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True))
        decoders[0].start()
        raise TIMED_OUT

    monkeypatch.setattr(cluster.ray, "init", init)
    try:
        assert cluster._init({"address": cluster.LOCAL_RAY}, "text") == "context"
        assert decoders[0].is_alive()
        assert psutil.pid_exists(resource_tracker._resource_tracker._pid)
        assert psutil.Process(resource_tracker._resource_tracker._pid).status() != psutil.STATUS_ZOMBIE
    finally:
        decoders[0].kill()
        decoders[0].join()


def test_the_third_failure_ends_the_run(failing):
    failing(3, TIMED_OUT)
    with (
        pytest.raises(PipelineError, match=r"^Ray did not start in 3 tries \(Exception: The current node timed out"),
        cluster.connected(ClusterConfig(address="local"), LogFormat.TEXT, Event()),
    ):
        pass


@pytest.mark.parametrize(("address", "error"), [("local", ValueError("num_cpus")), ("127.0.0.1:1", TIMED_OUT)])
def test_other_errors_and_existing_clusters_are_not_tried_again(failing, address, error):
    left = failing(1, error)
    with (
        pytest.raises(PipelineError, match="in 1 tries"),
        cluster.connected(ClusterConfig(address=address), LogFormat.TEXT, Event()),
    ):
        pass
    assert len(left) == 1


def test_what_ray_logs_before_the_run_has_its_log_is_logged_there(monkeypatch, caplog, capsys):
    def init(**_):
        logging.getLogger("ray").handlers.clear()  # as Ray's does
        logging.getLogger("ray._private.worker").warning("the object store is on the disk")
        return "context"

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    monkeypatch.setattr(logging.getLogger("ray"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)
    start = cluster.ClusterStart(ClusterConfig(address="local"), LogFormat.TEXT)
    assert start.poll(10)
    assert (caplog.messages, capsys.readouterr().err) == ([], "")
    assert start.wait(Event()) == "context"
    assert caplog.messages == ["the object store is on the disk"]
    start.end()
