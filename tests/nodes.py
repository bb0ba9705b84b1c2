"""A Ray cluster of several nodes on this machine, on 127.0.0.1 alone, as a process that obeys its standard input.

It prints the cluster's address; `kill` ends, without notice, a node that hosts a replica, `add` adds a node,
and the end of the input ends the cluster.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on loopback only
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
GPU_NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 << 20}


@dataclass
class Nodes:
    """The cluster as the test sees it."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    """For the commands that shall use it."""

    def tell(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def nodes(num_gpu_nodes: int) -> Iterator[Nodes]:
    """Start a head without GPUs and nodes with one fake GPU each."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.nodes", str(num_gpu_nodes)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        cluster = Nodes(process, dict(ENVIRONMENT))
        cluster.environment["RAY_ADDRESS"] = cluster.answer()
        yield cluster
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def main() -> None:
    from ray.cluster_utils import Cluster

    from tests.trees import KINDS

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    gpu_nodes = [cluster.add_node(**GPU_NODE) for _ in range(int(sys.argv[1]))]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "add":
            gpu_nodes.append(cluster.add_node(**GPU_NODE))
            print("added", flush=True)
            continue
        victim = next((node for node in gpu_nodes if _hosts(node, KINDS["caption"])), None)
        if victim is not None:
            gpu_nodes.remove(victim)
            cluster.remove_node(victim, allow_graceful=line.strip() == "drain")
        print("removed" if victim else "no replica anywhere", flush=True)
    cluster.shutdown()


def _hosts(node, words: str) -> bool:
    import psutil

    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for child in raylet.children(recursive=True):
        try:
            if words in " ".join(child.cmdline()):
                return True
        except psutil.Error:
            continue
    return False


if __name__ == "__main__":
    main()
