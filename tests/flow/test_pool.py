"""The pool of replicas on a cluster that changes: spread, grown, shrunk, and what a node that goes really costs.

The figures are printed (`pytest -s`): seconds until a new node has a replica and until it has staged something,
and the images asked twice for each node that went.
"""

import time
from collections import Counter
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import EngineConfig, EngineKind, parse_job
from pipeline.errors import ConfigError
from pipeline.flow.cluster import Cluster, check_gpus
from pipeline.flow.progress_actor import SILENT_S
from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.nodes import nodes
from tests.outputs import committed_rows, expected, fragments_of, identities

BATCH, IN_FLIGHT = 8, 2


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "gate")


def begin(tmp_path, cluster, gate, num_images, replicas, **engine):
    """Start a run and wait for its first fragments."""
    tmp_path.mkdir(exist_ok=True)
    draw_dataset(tmp_path / "in", num_images=num_images, seed=2, shard_rows=num_images // 4)
    engine = {"batches_in_flight": IN_FLIGHT, "replicas": replicas, "num_gpus": 1, **engine}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", own_ray=False, engine=engine)
    process = start(tmp_path, "caption", job, **cluster.environment, **gate.environment)
    gate.let(2)
    wait_until(lambda: len(fragments_of(tmp_path / "out")) == 2, process, "2 fragments")
    return process


def end(tmp_path, process, num_images):
    done = finish(process)
    assert done.code == 0, done
    assert identities(committed_rows(tmp_path / "out")) == Counter(expected(tmp_path / "in", num_images))
    return done


def replica_logs(cluster_logs: str) -> str:
    return "\n".join(file.read_text() for file in Path(cluster_logs).glob("worker-*.err"))


def logs_of(done) -> str:
    return next(line.split(": ", 1)[1] for line in done.out.splitlines() if line.startswith("logs of Ray"))


@pytest.mark.long
def test_two_replicas_do_not_share_a_node_while_another_is_idle(tmp_path, gate):
    with nodes(2, gpus=2, **gate.environment) as cluster:
        process = begin(tmp_path, cluster, gate, 80, 2)
        wait_until(lambda: sum(cluster.replicas()) == 2, process, "2 replicas")
        assert cluster.replicas() == [1, 1]
        gate.open()
        end(tmp_path, process, 80)


@pytest.mark.long
def test_the_pool_grows_to_its_maximum_and_shrinks_when_there_is_less_to_do(tmp_path, gate):
    with nodes(3, **gate.environment) as cluster:
        process = begin(tmp_path, cluster, gate, 320, {"min": 1, "max": 3})
        wait_until(lambda: sum(cluster.replicas()) == 3, process, "3 replicas")
        gate.let(40 - 2 - 1)  # all but the last batch: two replicas are idle while it is held
        wait_until(lambda: sum(cluster.replicas()) < 3, process, "fewer than 3 replicas")
        gate.open()
        end(tmp_path, process, 320)


@pytest.mark.long
def test_a_node_that_is_added_in_mid_run_is_used(tmp_path, gate):
    with nodes(1, **gate.environment) as cluster:
        process = begin(tmp_path, cluster, gate, 600, {"min": 1, "max": 3})
        assert cluster.replicas() == [1]
        assert cluster.tell("add") == "added"
        since = time.monotonic()
        wait_until(lambda: cluster.replicas() == [1, 1], process, "a replica on the new node")
        hosted = time.monotonic() - since
        wait_until(lambda: len(gate.holders()) == 2, process, "answers of both replicas")
        print(f"\na node added: a replica after {hosted:.1f} s, at work after {time.monotonic() - since:.1f} s")
        gate.open()
        end(tmp_path, process, 600)


def asked_until(tmp_path) -> int:
    return len(fragments_of(tmp_path / "out")) + sum(
        pq.read_metadata(file).num_rows // BATCH for file in (tmp_path / "out" / "captions").rglob("*.parquet")
    )


@pytest.mark.long
@pytest.mark.parametrize("cpus", [0, 1])
def test_a_node_that_is_removed_costs_what_was_in_flight_on_it(tmp_path, gate, cpus):
    """With CPUs, the nodes read as well, and a reader begins its shard anew: what it emitted is not asked twice."""
    asked = tmp_path / "asked"
    removed = 2
    with nodes(4, cpus=cpus, **gate.environment, JFTEST_ASKED=str(asked)) as cluster:
        process = begin(tmp_path, cluster, gate, 600, 4)
        for left in (4, 3):
            wait_until(lambda left=left: len(gate.holders()) == left, process, f"answers of {left} replicas")
            staged = asked_until(tmp_path)
            gate.let(6)
            wait_until(lambda staged=staged: asked_until(tmp_path) == staged + 6, process, "6 fragments more")
            wait_until(lambda left=left: gate.held() == left * IN_FLIGHT, process, "all replicas full")
            assert cluster.tell("kill") == "removed"
        gate.open()
        end(tmp_path, process, 600)
    again = asked.stat().st_size - 600
    print(f"\n{cpus} CPUs a node: {again / removed:g} images asked twice for each node that went")
    assert 0 < again <= removed * IN_FLIGHT * BATCH


CARDS = {"A100": {"max_num_seqs": 512}, "L4": {"max_num_seqs": 64, "enforce_eager": True}}


@pytest.mark.long
def test_each_replica_has_the_settings_of_its_accelerator_and_a_pool_of_one_type_uses_only_it(tmp_path, gate):
    with nodes(0, **gate.environment) as cluster:
        assert [cluster.tell("add L4"), cluster.tell("add A100")] == ["added", "added"]
        process = begin(tmp_path, cluster, gate, 80, 2, per_accelerator=CARDS)
        gate.open()
        text = replica_logs(logs_of(end(tmp_path, process, 80)))
        for kind, seqs in (("L4", 64), ("A100", 512)):
            [line] = [line for line in text.splitlines() if f"this replica is for accelerator={kind}: " in line]
            assert f" max_num_seqs={seqs}," in line
        gate.close()
        process = begin(tmp_path / "only", cluster, gate, 80, 1, accelerator_type="A100")
        assert cluster.replicas() == [0, 1]
        gate.open()
        end(tmp_path / "only", process, 80)
        (tmp_path / "none").mkdir()
        other = {"accelerator_type": "L5"}
        job = write_job(tmp_path / "none", tmp_path / "in", tmp_path / "o", own_ray=False, engine=other)
        unknown = run(tmp_path, "caption", job, **cluster.environment)
        assert unknown.code == 2, unknown
        assert "engine.accelerator_type: found 'L5', which Ray does not know and no node has" in unknown.err
        assert "the types in the cluster (A100, L4)" in unknown.err


def test_settings_of_an_accelerator_type_change_only_what_they_name():
    engine = EngineConfig.model_validate({"max_num_seqs": 128, "per_accelerator": CARDS})
    assert engine.on("A100").max_num_seqs == 512
    assert engine.on("L4").enforce_eager is True
    assert engine.on("L4").gpu_memory_utilization == engine.gpu_memory_utilization
    assert engine.on("H100") == engine
    assert engine.on(None) == engine


def test_settings_of_an_accelerator_type_leave_the_recipe_unchanged():
    from pipeline.flow.prepared_job import check_job

    base = {
        "source": "in",
        "output": "out",
        "model": "standin",
        "captions": {"slot": "long", "mode": "descriptive"},
    }
    plain, carded = (check_job(parse_job(base | more))[0] for more in ({}, {"engine": {"per_accelerator": CARDS}}))
    assert plain.fingerprint == carded.fingerprint


def test_the_gpu_build_on_a_cluster_that_has_no_gpu_yet_needs_the_number(monkeypatch):
    empty = Cluster(num_cpus=8, num_gpus=0.0, logs=None)
    check_gpus(EngineConfig(), empty)  # the CPU build is what is installed
    monkeypatch.setattr(metadata, "version", lambda name: {"vllm": "0.29.0"}[name])
    with pytest.raises(ConfigError, match=r"engine\.num_gpus: not set, the cluster has no GPU now"):
        check_gpus(EngineConfig(), empty)
    check_gpus(EngineConfig(num_gpus=1), empty)
    check_gpus(EngineConfig(), Cluster(num_cpus=8, num_gpus=1.0, logs=None))
    check_gpus(EngineConfig(kind=EngineKind.ECHO), empty)


def test_a_thousand_replicas_send_as_many_heartbeats_as_a_quarter_of_them():
    from pipeline.flow.ray_dataset import heartbeat_interval

    assert [heartbeat_interval(replicas) for replicas in (1, 64, 250, 1000)] == [1.0, 1.0, 1.0, 4.0]
    assert heartbeat_interval(10**6) == SILENT_S / 4
