"""Runs commits concurrently in a few long-lived actors on the driver's node.

Ray tasks would be slower: Ray ends idle workers after a second, so that each task needed a new worker, which spends
0.9 s of CPU on imports (measured; the commit of a shard of 1,000 images takes 0.2 to 0.4 s).
"""

from __future__ import annotations

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
from pipeline.ledger.retry_rows import RetryRows, replace_rows
from pipeline.ledger.shard_tracker import CompletedShard
from pipeline.storage import Store
from schemas.shard import Shard

THREADS = 4
"""Concurrent commits of an actor: they spend most of their time in storage and Arrow, which release the GIL."""

CPUS_PER_ACTOR = 64
"""The readers of 64 CPUs finish at most about 6 shards of 1,000 images a second; one actor can merge as many."""


class _Committer:
    def __init__(self, store: Store, identity: RunIdentity) -> None:
        self._store = store
        self._identity = identity

    def retry(self, shard: Shard, completed: CompletedShard, retry_rows: RetryRows, attempt: str) -> CommitResult:
        return replace_rows(self._store, self._identity, shard, retry_rows, completed.fragments, attempt)

    def commit(self, shard: Shard, completed: CompletedShard, attempt: str) -> CommitResult:
        return commit_shard(self._store, self._identity, shard, completed.num_images, completed.fragments, attempt)


class Commits:
    """Submits commits and collects their results."""

    def __init__(self, store: Store, identity: RunIdentity, num_cpus: int) -> None:
        driver_node: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Without reserved CPUs: readers may hold all CPUs while they wait for the engines.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": THREADS}
        committer: Any = ray.remote(_Committer)
        actors = [
            committer.options(**options, scheduling_strategy=driver_node).remote(store, identity)
            for _ in range(1 + num_cpus // CPUS_PER_ACTOR)
        ]
        self._next: Iterator[Any] = itertools.cycle(actors)
        self._under_way: dict[Any, tuple[str, float]] = {}
        self.committed: set[str] = set()
        """Shards whose committed file exists, whichever run created it."""

    def __len__(self) -> int:
        return len(self._under_way)

    def submit(self, task: ShardTask, completed: CompletedShard) -> None:
        shard, retry_rows, actor = task.shard, task.retry_rows, next(self._next)
        # Chosen by the driver: a commit that Ray repeats after its actor died then recognises its own file.
        attempt = uuid.uuid4().hex
        if retry_rows is None:
            reference = actor.commit.remote(shard, completed, attempt)
        else:
            reference = actor.retry.remote(shard, completed, retry_rows, attempt)
        self._under_way[reference] = (shard.path, time.monotonic())

    def finished(self) -> Iterator[tuple[CommitResult, float]]:
        """Yield the results that have arrived, with the seconds that each commit took; raise the error of a commit."""
        references = list(self._under_way)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0) if references else ([], [])
        for reference in ready:
            result: CommitResult = ray.get(reference)
            shard, submitted_at = self._under_way.pop(reference)
            self.committed.add(shard)
            yield result, time.monotonic() - submitted_at
