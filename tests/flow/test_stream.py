"""The stream from a Ray dataset to the driver: what arrives, which error, and that nothing of it outlives its end."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from pipeline.errors import PipelineError, StoreError
from pipeline.flow import stream
from pipeline.flow.stream import MOST_PAUSE_S, configure_data_context, unwrap

SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from pipeline.config import ClusterConfig, LogFormat
from pipeline.flow.ray_env import prepare_ray_env

config = ClusterConfig(num_cpus=2, object_store_gib=0.1)
prepare_ray_env(config)  # Ray reads its environment when it is imported
import ray
from pipeline.flow.cluster import connected
from pipeline.flow.stream import configure_data_context, open_stream

how, folder = sys.argv[1], Path(sys.argv[2])

def work(row):
    while how == "stop" and row["id"]:
        time.sleep(0.05)  # the first row arrives, no other does
    (folder / str(row["id"])).touch()
    return row

def threads():
    return sorted(thread.name for thread in threading.enumerate())

rows = []
with connected(config, LogFormat.TEXT, threading.Event()) as cluster:
    before = threads()
    configure_data_context()
    with open_stream(ray.data.range(4, override_num_blocks=4).map(work)) as stream:
        while not stream.ended and not (how == "stop" and rows):
            rows += [row["id"] for block in stream.blocks(0.2) for row in block.to_pylist()]
    # Ray's prefetcher waits on a condition of Python when it has nothing to fetch, and calls nothing of Ray then.
    left = [name for name in threads() if name not in before and name != "Prefetcher"]
print(json.dumps([sorted(rows), left]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "rows"), [("end", [0, 1, 2, 3]), pytest.param("stop", [0], marks=pytest.mark.long)])
def test_no_thread_of_an_execution_outlives_its_stream(tmp_path, how, rows):
    words = [sys.executable, "-c", SCRIPT, how, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [rows, []]


def test_an_error_of_ours_is_taken_out_of_rays_wrapping():
    error = StoreError("s3://bucket/a.tar: not found")
    wrapped: Any = RayTaskError("read", "Traceback ...", error).as_instanceof_cause()
    assert unwrap(wrapped) is error
    # Ray's wrapper is a StoreError too; without the error inside, its text is a traceback.
    wrapped.cause = None
    assert type(unwrap(wrapped)) is PipelineError
    assert unwrap(error) is error
    other = unwrap(RayTaskError("read", "Traceback ...", ValueError("five")).as_instanceof_cause())
    assert type(other) is PipelineError
    assert "the flow ended with an error of Ray" in str(other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own defaults, as its context is made
@pytest.mark.parametrize(("num_replicas", "pause_s"), [(0, 0.0), (1, 0.01), (24, 0.24), (1000, MOST_PAUSE_S)])
def test_with_many_replicas_the_scheduler_makes_fewer_rounds(num_replicas, pause_s, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(stream.time, "sleep", pauses.append)
    configure_data_context(num_replicas)
    stream._Execution().on_execution_step(SimpleNamespace(_topology=None))
    configure_data_context()  # another execution of this process
    stream._Execution().on_execution_step(SimpleNamespace(_topology=None))
    assert pauses == pytest.approx([pause_s, 0.0])
