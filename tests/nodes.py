"""A Ray cluster of several nodes on this machine, on 127.0.0.1 alone, as a process that obeys its standard input.

It prints the cluster's address; `kill` ends, without notice, a node that hosts a replica, `add` adds a node,
`add L4` one with a card of that type, `replicas` tells how many each node hosts, and the end of the input ends
the cluster.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.flow.ray_env import WORKER_NICENESS

Started = TypeVar("Started")

START_TRIES = 3
"""As in `pipeline.flow.cluster`: Ray allows its processes 30 s, too few on a busy machine."""

END_TIMEOUT_S = 60.0

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on loopback only
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    **WORKER_NICENESS,
}


@dataclass
class Nodes:
    """The cluster as the test sees it."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    """For the commands that shall use it."""
    log: Path
    """What the process of the cluster wrote to its standard error."""

    def tell(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process of the cluster ended (exit code {self.process.wait()}): {self.log.read_text()}"
        return line.strip()

    def replicas(self) -> list[int]:
        return json.loads(self.tell("replicas"))


@contextmanager
def nodes(
    num_gpu_nodes: int, *, gpus: int = 1, cpus: int = 1, store_mib: int = 100, **environment: str
) -> Iterator[Nodes]:
    """Start a head of one CPU without GPUs, and nodes with some fake GPUs, CPUs and memory of an object store each."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **ENVIRONMENT, **environment}
    with (
        tempfile.NamedTemporaryFile(prefix="jf-nodes-", suffix=".log") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.nodes", *map(str, (num_gpu_nodes, gpus, cpus, store_mib))],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        cluster = Nodes(process, dict(ENVIRONMENT), Path(log.name))
        cluster.environment["RAY_ADDRESS"] = cluster.answer()
        yield cluster
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def main() -> None:
    from ray.cluster_utils import Cluster

    from tests.trees import KINDS

    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
    cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    gpus, cpus, store_mib = (int(word) for word in sys.argv[2:])
    gpu_node = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": store_mib << 20}
    gpu_nodes = [_patiently(lambda: cluster.add_node(**gpu_node)) for _ in range(int(sys.argv[1]))]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "add":
            card = _card(*rest)
            gpu_nodes.append(_patiently(lambda card=card: cluster.add_node(**gpu_node, **card)))
            print("added", flush=True)
            continue
        if word == "replicas":
            print(json.dumps([_hosted(node, KINDS["caption"]) for node in gpu_nodes]), flush=True)
            continue
        victim = next((node for node in gpu_nodes if _hosted(node, KINDS["caption"])), None)
        if victim is not None:
            gpu_nodes.remove(victim)
            processes = _processes_of(victim)
            cluster.remove_node(victim, allow_graceful=word == "drain")
            _wait_for_end(processes)
        print("removed" if victim else "no replica anywhere", flush=True)
    cluster.shutdown()


def _patiently(start: Callable[[], Started]) -> Started:
    for _ in range(START_TRIES - 1):
        try:
            return start()
        except Exception as err:  # noqa: BLE001 - of no narrower type, see pipeline.flow.cluster
            print(f"Ray did not start: {err!r}", file=sys.stderr, flush=True)
    return start()


def _card(kind: str = "") -> dict:
    """What Ray gives a node with a card of this type."""
    result = {"labels": {"ray.io/accelerator-type": kind}, "resources": {f"accelerator_type:{kind}": 1}}
    return result if kind else {}


def _processes_of(node) -> list:
    import psutil

    return psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)


def _wait_for_end(processes: list) -> None:
    """Wait for the workers, which notice the end of their raylet a moment later.

    Until then they take what a test lets pass its gate, and die with it.
    """
    import psutil

    _, alive = psutil.wait_procs(processes, timeout=END_TIMEOUT_S)
    assert not alive, f"processes outlive their node: {alive}"


def _hosted(node, words: str) -> int:
    import psutil

    hosted = 0
    for process in _processes_of(node):
        try:
            hosted += words in " ".join(process.cmdline())
        except psutil.Error:
            continue
    return hosted


if __name__ == "__main__":
    main()
