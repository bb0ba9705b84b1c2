"""`joyfleet doctor job.yaml` as a user runs it: on this machine, and on every node of a real cluster."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import run, write_job
from tests.doctor.faults import by_name, checks, fake_nvidia_smi
from tests.nodes import nodes

pytestmark = pytest.mark.slow

NODE = {"driver", "CUDA", "GPU memory", "compiler", "shared memory", "open files", "disk", "clock", "reading", "output"}
MODEL = {"disk of weights", "weights", "layout"}
VLLM = {"kind": "vllm", "max_model_len": 768}


@pytest.fixture
def drawn(tmp_path):
    draw_dataset(tmp_path / "in", num_images=4, seed=3, shard_rows=2)
    return tmp_path


@pytest.mark.long
def test_the_known_caption_comes_out_of_the_jobs_own_engine(drawn):
    job = write_job(drawn, drawn / "in", drawn / "out", engine=VLLM)
    done = run(drawn, "doctor", job, "--json")
    result = by_name(done)
    assert set(result) == {"source", *NODE, *MODEL, "golden image"}
    level, message = result["golden image"]
    assert (level, message.partition("; ")[2]) == (
        "ok",
        "the 33 tokens of the known caption: 'This image shows a large red circle on a plain white background. It is "
        "placed at the center of the image. The background is white with a plain texture.'",
    )
    assert done.code == 0
    assert not [path for path in (drawn / "out").rglob("*") if path.is_file()]


@pytest.mark.long
def test_the_engine_is_not_started_where_another_check_failed(drawn):
    job = write_job(drawn, drawn / "nowhere", drawn / "out", engine=VLLM)
    done = run(drawn, "doctor", job, "--json")
    result = by_name(done)
    assert result["source"][0] == result["reading"][0] == "failed"
    assert result["golden image"] == ("warning", "not run, since another check of this node failed")
    table = run(drawn, "doctor", job)
    assert table.code == 1
    assert "-> see the check of the source" in table.out


@pytest.mark.long
def test_every_node_of_a_cluster_is_checked_and_gpu_nodes_with_an_old_driver_fail(drawn):
    path = fake_nvidia_smi(drawn / "bin", driver="550.54.15")
    job = write_job(drawn, drawn / "in", drawn / "out", own_ray=False, engine=VLLM)
    with nodes(2, PATH=path) as cluster:
        done = run(drawn, "doctor", job, "--json", **cluster.environment)
    result = checks(done)
    assert done.code == 1
    assert Counter(check["check"] for check in result) == {
        "source": 1, **dict.fromkeys(NODE | MODEL, 3), "golden image": 2,
    }  # fmt: skip
    assert len({check["node"] for check in result}) == 4  # three nodes and the driver
    assert [check["level"] for check in result if check["check"] == "driver"] == ["failed"] * 3
    assert {check["level"] for check in result if check["check"] in ("reading", "output", "layout")} == {"ok"}
    assert {check["message"] for check in result if check["check"] == "golden image"} == {
        "not run, since another check of this node failed"
    }


@pytest.mark.long
def test_a_good_cluster_passes_with_a_caption_from_one_node(drawn):
    job = write_job(drawn, drawn / "in", drawn / "out", own_ray=False, engine=VLLM)
    with nodes(1, gpus=0) as cluster:
        address = cluster.environment["RAY_ADDRESS"]
        environment = {name: value for name, value in cluster.environment.items() if name != "RAY_ADDRESS"}
        done = run(drawn, "doctor", job, "--json", "--address", address, **environment)
        machines = run(drawn, "doctor", "--json", "--address", address, **environment)
        words = ["--set", "engine.num_gpus=2", "--json", "--address", address]
        without = run(drawn, "doctor", job, *words, **environment)
    result = checks(done)
    assert done.code == 0, done
    assert Counter(check["check"] for check in result)["layout"] == 2
    [golden] = [check for check in result if check["check"] == "golden image"]
    assert (golden["level"], "the 33 tokens of the known caption" in golden["message"]) == ("ok", True)
    assert "checking 2 nodes" in done.err
    [golden] = [check for check in checks(without) if check["check"] == "golden image"]
    assert (golden["level"], golden["message"]) == ("warning", "not run, since no node has 2 GPUs now")
    assert machines.code == 0
    assert {check["check"] for check in checks(machines)} == NODE - {"clock", "reading", "output"}


@pytest.mark.long
def test_a_node_whose_gpus_are_in_use_is_a_warning(drawn):
    job = write_job(drawn, drawn / "in", drawn / "out", own_ray=False, engine=VLLM)
    with nodes(1, gpus=1) as cluster:
        done = subprocess.run(
            [sys.executable, "-m", "tests.doctor.busy_gpu", job],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **cluster.environment},
            cwd=drawn,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["golden image", "warning", "not run, since a run uses the GPUs of this node"]
    ]
