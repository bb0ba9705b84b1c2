"""Run the doctor's checks on a cluster whose GPUs are all reserved, with a short wait; prints the levels as JSON."""

import json
import sys
import threading

import ray

from pipeline.config import ClusterConfig, LogFormat, load_job
from pipeline.doctor import Context, checks_at
from pipeline.flow import doctor_nodes
from pipeline.flow.cluster import connected


@ray.remote(num_gpus=1, num_cpus=0)
class Holder:
    def ready(self) -> None: ...


def main() -> None:
    doctor_nodes.START_TASK_S = 3
    # Only the engine's part: the machine has no GPU, so that the checks of the nodes would fail.
    doctor_nodes.checks_at = lambda place, context: checks_at(place, context) if place == "engine" else []
    job = load_job(sys.argv[1], ())
    with connected(ClusterConfig(), LogFormat.TEXT, threading.Event()) as cluster:
        holder = Holder.remote()
        ray.get(holder.ready.remote())
        results = list(doctor_nodes.examine_nodes(Context(job=job), cluster, lambda _: None))
    print(json.dumps([[result.check, result.finding.level, result.finding.message] for result in results]))


if __name__ == "__main__":
    main()
