"""What a run may not keep for every batch that passes: it would end a run of weeks."""

import json
import os
from pathlib import Path

import pytest
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator

from pipeline.config import ClusterConfig
from pipeline.flow.isolate import TASK_EVENTS, isolate_ray
from pipeline.standin.dataset import draw_dataset
from tests.cli import run, write_job

NUM_IMAGES = 64


class TellKept(ExecutionCallback):
    """Named to Ray Data in a run's environment: writes what each operator gave out and what it kept of it."""

    def after_execution_succeeds(self, executor) -> None:
        told = [
            (operator.name, operator.metrics.num_outputs_taken, len(operator._output_blocks_stats))
            for operator in executor._topology
            if isinstance(operator, MapOperator)
        ]
        Path(os.environ["TELL_KEPT"]).write_text(json.dumps(told))


@pytest.mark.slow
def test_ray_data_keeps_nothing_of_a_batch_that_has_passed(tmp_path):
    draw_dataset(tmp_path / "in", num_images=NUM_IMAGES, seed=1, shard_rows=NUM_IMAGES // 2)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 1})
    kept = tmp_path / "kept.json"
    tell = f"{__name__}.{TellKept.__name__}"
    done = run(tmp_path, "caption", job, RAY_DATA_EXECUTION_CALLBACKS=tell, TELL_KEPT=str(kept))
    assert done.code == 0, done
    operators = json.loads(kept.read_text())
    assert [taken for _, taken, _ in operators] == [NUM_IMAGES, NUM_IMAGES], operators
    assert [blocks for *_, blocks in operators] == [0, 0], operators


@pytest.mark.parametrize("given", [None, "77"])
def test_task_events_are_capped_unless_the_user_says_otherwise(monkeypatch, given):
    name = next(iter(TASK_EVENTS))
    copy = {key: value for key, value in os.environ.items() if key not in {"RAY_ADDRESS", *TASK_EVENTS}}
    monkeypatch.setattr(os, "environ", copy | ({name: given} if given else {}))
    isolate_ray(ClusterConfig(num_cpus=2))
    assert os.environ[name] == (given or TASK_EVENTS[name])


def test_the_task_events_of_a_cluster_are_its_own(monkeypatch):
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if key not in TASK_EVENTS})
    isolate_ray(ClusterConfig(address="10.0.0.1:6379"))
    assert not TASK_EVENTS.keys() & os.environ.keys()
