"""Ray is imported while a job is planned, and started as soon as the run is known to have work, never without."""

import signal
import threading
from types import SimpleNamespace

import pytest

from jobs import caption, ray_ahead
from jobs.ray_ahead import RayAhead
from jobs.signals import Signals
from pipeline.config import ClusterConfig, LogFormat
from pipeline.errors import ConfigError, StoreError
from pipeline.flow.cluster import restored_signals

WAIT_S = 10.0


class FakeStart:
    """A start of Ray that has replaced a signal's handler, as Ray's does."""

    def __init__(self, cluster, logs):
        self.arguments = (cluster, logs)
        FakeStart.begun.set()

    def poll(self, timeout_s):
        return True


@pytest.fixture
def ahead(monkeypatch):
    """Begin a start for a job with these logs; Ray itself is not imported."""
    FakeStart.begun = threading.Event()
    modules = {
        "pipeline.flow.cluster": SimpleNamespace(ClusterStart=FakeStart, restored_signals=restored_signals),
        "pipeline.flow.driver": None,
    }
    monkeypatch.setattr(ray_ahead, "import_module", modules.__getitem__)
    monkeypatch.setattr(ray_ahead, "SIGNALS", Signals())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return lambda logs=LogFormat.TEXT, address=None: RayAhead(
        SimpleNamespace(cluster=ClusterConfig(address=address), logs=logs)
    )


def test_a_run_with_work_starts_ray_while_it_is_still_planned(ahead):
    def plan(work_found):
        assert not FakeStart.begun.is_set()
        work_found()
        assert FakeStart.begun.wait(WAIT_S)
        return "planned"

    running = ahead()
    assert running.plan(plan) == "planned"
    assert running.started().arguments == (ClusterConfig(), LogFormat.TEXT)


def test_a_run_without_work_starts_no_ray(ahead):
    running = ahead()
    assert running.plan(lambda work_found: "planned") == "planned"
    assert running.started() is None
    assert not FakeStart.begun.is_set()


def test_a_start_that_changes_the_loggers_waits_for_the_run(ahead):
    running = ahead(LogFormat.JSON)
    assert running.plan(lambda work_found: work_found()) is None
    assert running.started() is None


def test_a_cluster_at_an_address_is_not_connected_to_before_the_run(ahead, monkeypatch):
    running = ahead(address="ray://head:10001")
    assert running.plan(lambda work_found: work_found()) is None
    assert running.started() is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    running = ahead()
    assert running.plan(lambda work_found: work_found()) is None
    assert running.started() is None
    assert not FakeStart.begun.is_set()


@pytest.mark.parametrize("begun", [False, True])
def test_a_mistake_ends_the_process_without_waiting_for_ray(ahead, begun, monkeypatch):
    def plan(work_found):
        if begun:
            work_found()
            assert FakeStart.begun.wait(WAIT_S)
        raise ConfigError("seed: found -1")

    running = ahead()
    with pytest.raises(ConfigError, match="seed"):
        running.plan(plan)
    running.started()
    ends = []
    monkeypatch.setattr("jobs.signals.os._exit", ends.append)
    ray_ahead.SIGNALS.end(2)
    assert ends == [2]


def test_the_signal_handlers_are_restored_while_the_job_is_still_planned(ahead, monkeypatch):
    restored = threading.Event()
    monkeypatch.setattr(signal, "signal", lambda number, handler: restored.set())
    monkeypatch.setattr(signal, "alarm", lambda seconds: None)

    def plan(work_found):
        assert not restored.is_set()
        work_found()
        assert restored.wait(WAIT_S)

    ahead().plan(plan)


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_run_that_fails_before_it_has_ended_ray_does_not_wait_for_it(monkeypatch, has_ended):
    signals, ends = Signals(), []
    monkeypatch.setattr(caption, "SIGNALS", signals)
    monkeypatch.setattr("jobs.signals.os._exit", ends.append)

    def failing(prepared, start):
        raise StoreError("out: does not answer")

    monkeypatch.setattr(caption, "run_with_summary", failing)
    with pytest.raises(StoreError):
        caption.run_prepared(None, SimpleNamespace(has_ended=has_ended))
    signals.end(1)
    assert ends == ([] if has_ended else [1])
