"""The doctor's checks on every node of a cluster: one task a node, pinned to it, that runs them in child processes."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import JobConfig, without_secrets
from pipeline.doctor import Context, Finding, Level, Place, Result, checks_at, examine
from pipeline.doctor.examine import AFTER_FAILURE, START_S, not_run
from pipeline.doctor.stores import marked_output
from pipeline.flow.cluster import ACCELERATOR_LABEL, Cluster

START_TASK_S = 120
"""Until a node's task begins: Ray starts a worker process there, on a busy machine within a minute."""

VISIBLE = "CUDA_VISIBLE_DEVICES"

IN_USE = "not run, since a run uses the GPUs of this node"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """One node that Ray calls alive."""

    id: str
    name: str
    num_cpus: int
    num_gpus: float
    accelerator: str | None


def examine_nodes(base: Context, cluster: Cluster, tell: Callable[[str], None]) -> Iterator[Result]:
    """Yield the results of all nodes of the connected cluster, as they come.

    Args:
        base: with the job and the survey of its source, if there is a job.
        cluster: connected.
        tell: gets a line before each step, for people who wait.
    """
    nodes = _alive()
    tell(f"checking {len(nodes)} nodes")
    failed: set[str] = set()
    with marked_output(base) as marked:
        contexts = {node.id: _context(marked, node) for node in nodes}
        for result in _run(nodes, contexts, Place.NODE, 0):
            if result.finding.level is Level.FAILED:
                failed.add(result.node)
            yield result
    if base.job is not None and checks_at(Place.ENGINE, base):
        num_gpus = cluster.gpus_per_replica(base.job.engine)
        hosts = _engine_nodes(nodes, base.job, num_gpus)
        if not hosts:
            kind = f" of type {base.job.engine.accelerator_type}" if base.job.engine.accelerator_type else ""
            why = f"not run, since no node has {num_gpus:g} GPUs{kind} now"
            yield from not_run(checks_at(Place.ENGINE, base), "cluster", why)
        yield from _not_run([node for node in hosts if node.name in failed], contexts, AFTER_FAILURE)
        hosts = [node for node in hosts if node.name not in failed]
        free = _with_free_gpus(hosts, num_gpus) if num_gpus and hosts else hosts
        yield from _not_run([node for node in hosts if node not in free], contexts, IN_USE)
        if free:
            tell(f"starting the engine on {len(free)} nodes for one image; it takes minutes")
            yield from _run(free, contexts, Place.ENGINE, num_gpus)


def _not_run(nodes: Sequence[_Node], contexts: Mapping[str, Context], why: str) -> Iterator[Result]:
    for node in nodes:
        yield from not_run(checks_at(Place.ENGINE, contexts[node.id]), node.name, why)


def _with_free_gpus(nodes: Sequence[_Node], num_gpus: float) -> list[_Node]:
    """Return the nodes on which a task with so many GPUs begins; on the others a run uses them."""
    tasks = {_pinned(_begin, node, num_gpus).remote(): node for node in nodes}
    begun, waiting = ray.wait(list(tasks), num_returns=len(tasks), timeout=START_TASK_S)
    for task in waiting:
        ray.cancel(task, force=True)
    return [tasks[task] for task in begun]


@ray.remote
def _begin() -> None:
    """Do nothing: that it starts shows that the GPUs are free."""


def _alive() -> list[_Node]:
    alive = [node for node in ray.nodes() if node["Alive"]]
    addresses = [node["NodeManagerAddress"] for node in alive]
    return [
        _Node(
            id=node["NodeID"],
            # Several nodes on one machine, as in a test, have one address.
            name=address if addresses.count(address) == 1 else f"{address} {node['NodeID'][:6]}",
            num_cpus=int(node["Resources"].get("CPU", 0)),
            num_gpus=node["Resources"].get("GPU", 0.0),
            accelerator=node.get("Labels", {}).get(ACCELERATOR_LABEL),
        )
        for node, address in zip(alive, addresses, strict=True)
    ]


def _context(base: Context, node: _Node) -> Context:
    job = base.job and base.job.model_copy(update={"engine": base.job.engine.on(node.accelerator)})
    readers = max(1, node.num_cpus)
    if job and job.cluster.max_concurrent_reads:
        readers = min(readers, job.cluster.max_concurrent_reads)
    return replace(base, job=job, needs_gpu=node.num_gpus > 0, num_readers=readers)


def _engine_nodes(nodes: Sequence[_Node], job: JobConfig, num_gpus: float) -> list[_Node]:
    """Nodes with the GPUs of a replica, and the type that the job asks for; without GPUs, one node stands for all."""
    wanted = job.engine.accelerator_type
    able = [node for node in nodes if node.num_gpus >= num_gpus and wanted in (None, node.accelerator)]
    return able if num_gpus else able[:1]


def _run(nodes: Sequence[_Node], contexts: Mapping[str, Context], place: Place, num_gpus: float) -> Iterator[Result]:
    names = {node.id: [check.name for check in checks_at(place, contexts[node.id])] for node in nodes}
    limits = {
        node.id: START_TASK_S + sum(START_S + check.timeout_s for check in checks_at(place, contexts[node.id]))
        for node in nodes
    }
    tasks = {_pinned(_examine, node, num_gpus).remote(place, contexts[node.id], node.name): node for node in nodes}
    until = time.monotonic() + max(limits.values(), default=0.0)
    waiting = list(tasks)
    while waiting:
        ended, waiting = ray.wait(waiting, timeout=max(0.0, until - time.monotonic()))
        for task in ended:
            yield from _results(task, tasks[task], names[tasks[task].id])
        if not ended:
            break
    for task in waiting:
        ray.cancel(task, force=True)
        node = tasks[task]
        yield from _lost(node, names[node.id], f"no answer from this node within {limits[node.id]:.0f} s")


def _pinned(task: Any, node: _Node, num_gpus: float) -> Any:  # noqa: ANN401 - Ray's remote functions have no type
    strategy = NodeAffinitySchedulingStrategy(node_id=node.id, soft=False)
    return task.options(scheduling_strategy=strategy, num_cpus=0, num_gpus=num_gpus, max_retries=0)


@ray.remote
def _examine(place: Place, context: Context, node: str) -> list[Result]:
    environment = dict(os.environ)
    # Ray hides the GPUs from a task that reserves none.
    if not environment.get(VISIBLE, "x"):
        del environment[VISIBLE]
    return examine(checks_at(place, context), context, node, environment)


def _results(task: Any, node: _Node, names: Sequence[str]) -> Iterator[Result]:  # noqa: ANN401 - an ObjectRef
    try:
        yield from ray.get(task)
    except RayError as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        yield from _lost(node, names, f"the task on this node ended with {type(err).__name__}: {lines[-1]}")


def _lost(node: _Node, names: Sequence[str], message: str) -> Iterator[Result]:
    remedy = "check that the node is alive (ray status), idle, and has the same version of JoyFleet as this machine"
    finding = Finding(level=Level.FAILED, message=without_secrets(message), remedy=remedy)
    for name in names:
        yield Result(node=node.name, check=name, finding=finding)
