"""Readers stand back behind an engine on the same CPUs, and leave no trace of it in their process."""

import os
import threading
from collections.abc import Generator

import pytest

from pipeline.config import EngineConfig
from pipeline.flow.cluster import Cluster
from pipeline.flow.low_priority import at_niceness
from pipeline.flow.ray_dataset import READER_NICENESS, reader_niceness


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def places(closed: list[tuple[str, int]]) -> Generator[tuple[str, int]]:
    try:
        for _ in range(3):
            yield threading.current_thread().name, niceness()
    finally:
        closed.append((threading.current_thread().name, niceness()))


def test_items_are_made_in_a_nicer_thread_and_the_caller_stays_as_it_is():
    before, closed = niceness(), []
    threads = list(at_niceness(places(closed), 3))
    assert len(threads) == 3
    assert {(name.startswith("low-priority"), nice) for name, nice in threads} == {(True, min(19, before + 3))}
    assert niceness() == before
    assert closed == threads[:1]
    assert threading.current_thread().name == "MainThread"


def test_an_error_reaches_the_caller():
    def broken() -> Generator[int]:
        yield 1
        raise OSError("disk is gone")

    items = at_niceness(broken(), 1)
    assert next(items) == 1
    with pytest.raises(OSError, match="disk is gone"):
        next(items)


def test_a_caller_that_stops_early_closes_the_items_in_their_thread():
    closed: list[tuple[str, int]] = []
    items = at_niceness(places(closed), 1)
    first = next(items)
    items.close()
    assert closed == [first]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({}, READER_NICENESS),
        ({"kind": "echo"}, 0),
        ({"kind": "endpoint", "endpoint": {"urls": ["http://x:8000/v1"]}}, 0),
    ],
)
def test_only_an_engine_on_the_same_cpus_makes_readers_stand_back(engine, expected):
    on_cpus, with_gpus = Cluster(num_cpus=2, num_gpus=0, logs=None), Cluster(num_cpus=2, num_gpus=1, logs=None)
    config = EngineConfig(**engine)
    assert reader_niceness(config, on_cpus) == expected
    assert reader_niceness(config, with_gpus) == 0
