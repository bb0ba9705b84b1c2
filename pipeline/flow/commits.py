"""Runs commits concurrently in a few long-lived actors on the driver's node.

Ray tasks would be slower: Ray ends idle workers after a second, so that each task needed a new worker, which spends
0.9 s of CPU on imports (measured; the commit of a shard of 1,000 images takes 0.2 to 0.4 s).
"""

import itertools
import time
import uuid
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.flow.shard_task import ShardTask
from pipeline.ledger.commit import CommitResult, commit_shard
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.retry_rows import replace_rows
from pipeline.ledger.shard_tracker import CompletedShard
from pipeline.storage import Store

THREADS = 4
"""Concurrent commits of an actor: they spend most of their time in storage and Arrow, which release the GIL."""

CPUS_PER_ACTOR = 64
"""The readers of 64 CPUs finish at most about 6 shards of 1,000 images a second; one actor can merge as many."""


class _Committer:
    def __init__(self, store: Store, identity: RunIdentity) -> None:
        self._store = store
        self._identity = identity

    def commit(self, task: ShardTask, completed: CompletedShard, attempt: str) -> CommitResult:
        return commit_task(self._store, self._identity, task, completed, attempt)


def commit_task(
    store: Store, identity: RunIdentity, task: ShardTask, completed: CompletedShard, attempt: str | None = None
) -> CommitResult:
    """Commit the shard of a task, or replace the rows that the task asked again; raises as these do."""
    if task.retry_rows is not None:
        return replace_rows(store, identity, task.shard, task.retry_rows, completed.fragments, attempt)
    return commit_shard(store, identity, task.shard, completed.num_images, completed.fragments, attempt)


class Commits:
    """Submits commits and collects their results."""

    def __init__(self, store: Store, identity: RunIdentity, num_cpus: int) -> None:
        self._store = store
        self._identity = identity
        self._num_actors = 1 + num_cpus // CPUS_PER_ACTOR
        self._actors: Iterator[Any] | None = None
        self._under_way: dict[Any, tuple[str, float]] = {}
        self.committed: set[str] = set()
        """Shards whose committed file exists, whichever run created it."""

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self) -> None:
        """Start the actors at the first receipt: earlier they would take CPU from the start of the engines."""
        if self._actors is not None:
            return
        driver_node: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Without reserved CPUs: readers may hold all CPUs while they wait for the engines.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": THREADS}
        committer: Any = ray.remote(_Committer).options(**options, scheduling_strategy=driver_node)
        self._actors = itertools.cycle([committer.remote(self._store, self._identity) for _ in range(self._num_actors)])

    def submit(self, task: ShardTask, completed: CompletedShard) -> None:
        # The driver names the attempt: a commit that Ray repeats after its actor died recognises its own file.
        self.start()
        assert self._actors is not None
        reference = next(self._actors).commit.remote(task, completed, uuid.uuid4().hex)
        self._under_way[reference] = (task.shard.path, time.monotonic())

    def finished(self) -> Iterator[tuple[CommitResult, float]]:
        """Yield the results that have arrived, with the seconds that each commit took; raise the error of a commit."""
        references = list(self._under_way)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
        for reference in ready:
            result: CommitResult = ray.get(reference)
            shard, submitted_at = self._under_way.pop(reference)
            self.committed.add(shard)
            yield result, time.monotonic() - submitted_at
