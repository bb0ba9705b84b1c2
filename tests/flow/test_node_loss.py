"""Nodes that vanish in mid-run: the replicas come back elsewhere, and nothing is lost."""

from collections import Counter

import psutil
import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.nodes import nodes
from tests.outputs import committed_rows, expected, fragments_of, identities

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")

pytestmark = pytest.mark.long


@pytest.mark.parametrize("how", ["kill", "drain"])
def test_a_node_that_vanishes_costs_no_row(tmp_path, how):
    draw_dataset(tmp_path / "in", num_images=240, seed=2, shard_rows=60)
    output = tmp_path / "out"
    engine = {"batches_in_flight": 2, "replicas": 2, "num_gpus": 1}
    job = write_job(tmp_path, tmp_path / "in", output, own_ray=False, engine=engine)
    gate = Gate(tmp_path / "gate")
    with nodes(num_gpu_nodes=3, **gate.environment) as cluster:
        process = start(tmp_path, "caption", job, **cluster.environment, **gate.environment)
        gate.let(4)
        wait_until(lambda: len(fragments_of(output)) == 4, process, "4 fragments")
        wait_until(lambda: len(gate.holders()) == 2, process, "2 replicas with batches in flight")
        assert cluster.tell(how) == "removed"
        gate.let(4)
        wait_until(lambda: len(fragments_of(output)) == 8 or committed_rows(output), process, "4 fragments more")
        assert cluster.tell("add") == "added"
        gate.open()
        done = finish(process)
        assert done.code == 0, done
        assert not_loopback(cluster.process.pid) == []
    assert identities(committed_rows(output)) == Counter(expected(tmp_path / "in", 240))
    assert run(tmp_path, "verify", str(output)).code == 0


def not_loopback(pid: int) -> list[str]:
    """Sockets of the cluster that others on the network could reach."""
    result: list[str] = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            listening = [item for item in process.net_connections("inet") if item.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue
        result += [f"{process.name()} {item.laddr}" for item in listening if item.laddr.ip not in LOOPBACK]
    return result
