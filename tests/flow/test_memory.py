"""The memory of a run does not grow with its batches: no statistics, strings or arenas are kept for each."""

import ctypes
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator

from pipeline.config import ClusterConfig
from pipeline.flow.driver import _Driver
from pipeline.flow.progress import Progress
from pipeline.flow.ray_env import TASK_EVENTS, WORKER_NICENESS, prepare_ray_env
from pipeline.flow.shard_task import ShardTask
from pipeline.ledger.shard_tracker import Receipt, ShardTracker
from pipeline.standin.demo_data import draw_dataset
from schemas.batch import BatchKind
from schemas.shard import Shard
from tests.cli import run, write_job

NUM_IMAGES = 64


class WriteStats(ExecutionCallback):
    """Callback of Ray Data in a run: writes how many blocks each operator emitted, and how many statistics it keeps."""

    def after_execution_succeeds(self, executor) -> None:
        operators = [
            (operator.name, operator.metrics.num_outputs_taken, len(operator._output_blocks_stats))
            for operator in executor._topology
            if isinstance(operator, MapOperator)
        ]
        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p
        with Path(os.environ["STATS_FILE"]).open("w+b") as file:
            libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(os.dup(file.fileno()), b"w")))
            libc.fflush(None)
            file.seek(0)
            arenas = file.read().count(b"<heap nr=")
        Path(os.environ["STATS_FILE"]).write_text(json.dumps({"operators": operators, "arenas": arenas}))


@pytest.mark.long
def test_a_driver_keeps_no_statistics_of_blocks_and_few_arenas(tmp_path):
    draw_dataset(tmp_path / "in", num_images=NUM_IMAGES, seed=1, shard_rows=NUM_IMAGES // 2)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 1})
    stats = tmp_path / "stats.json"
    callback = f"{__name__}.{WriteStats.__name__}"
    done = run(tmp_path, "caption", job, RAY_DATA_EXECUTION_CALLBACKS=callback, STATS_FILE=str(stats))
    assert done.code == 0, done
    written = json.loads(stats.read_text())
    operators = written["operators"]
    assert [taken for _, taken, _ in operators] == [NUM_IMAGES, NUM_IMAGES], operators
    assert [blocks for *_, blocks in operators] == [0, 0], operators
    # Threads of the planning may have created arenas before the limit; Ray's threads use all that glibc allows.
    assert written["arenas"] in range(1, 5)


THREADS = """
import ctypes, os, threading
from pipeline.flow.arenas import limit_arenas
limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
gate = threading.Barrier(17)
def allocate():
    gate.wait()
    libc.malloc(100)
    gate.wait()
threads = [threading.Thread(target=allocate) for _ in range(16)]
[thread.start() for thread in threads]
gate.wait()
gate.wait()
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(os.dup(1), b"w")))
libc.fflush(None)
"""


def test_a_finished_shard_is_kept_as_the_string_of_the_plan():
    shard = Shard("photos/00001.tar", "/photos/00001.tar", 100, "etag")
    driver = object.__new__(_Driver)
    driver._tasks, driver._tracker, driver._commits = {shard.path: ShardTask(shard, ())}, ShardTracker(), Submitted()
    driver._progress = Progress(shards=1, bytes_total=100, bytes_before=0, shards_before=0)
    name = "".join(list(shard.path))
    assert name is not shard.path
    driver._process_receipt(Receipt(kind=BatchKind.EMPTY, shard=name, num_images=0, fragment=None, rows=[]))
    assert [completed.shard for _, completed in driver._commits.submitted] == [shard.path]
    assert next(iter(driver._tracker._finished)) is shard.path


class Submitted:
    def __init__(self) -> None:
        self.submitted: list[Any] = []

    def submit(self, *commit: Any) -> None:
        self.submitted.append(commit)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are glibc's")
@pytest.mark.parametrize(("given", "arenas"), [(None, 2), ("3", 3)])
def test_threads_of_a_driver_share_their_heaps(given, arenas):
    environment = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    environment |= {"MALLOC_ARENA_MAX": given} if given else {}
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("<heap nr=") == arenas, done.stdout


@pytest.mark.parametrize("given", [None, "7"])
@pytest.mark.parametrize(("name", "default"), [*TASK_EVENTS.items(), *WORKER_NICENESS.items()])
def test_a_local_ray_is_tuned_unless_the_user_says_otherwise(monkeypatch, name, default, given):
    copy = {key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", name}}
    monkeypatch.setattr(os, "environ", copy | ({name: given} if given else {}))
    prepare_ray_env(ClusterConfig(num_cpus=2))
    assert os.environ[name] == (given or default)


def test_the_task_events_of_a_cluster_are_its_own(monkeypatch):
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key not in TASK_EVENTS})
    prepare_ray_env(ClusterConfig(address="10.0.0.1:6379"))
    assert not TASK_EVENTS.keys() & os.environ.keys()
