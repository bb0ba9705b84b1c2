"""Commits under way: done by a few long-lived actors beside the driver, many at once.

Not by Ray tasks: Ray ends idle workers after a second, so that every task paid for a new one, 0.9 s of
CPU for its imports (measured; a commit of 1,000 images itself takes 0.2 to 0.4 s).
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
"""Commits that an actor has under way: most of their time is storage and Arrow, neither of which holds the GIL."""

CPUS_PER_ACTOR = 64
"""Readers of 64 CPUs finish about 6 shards of 1,000 images a second at best, which is what one actor can merge."""


class _Committer:
    def __init__(self, store: Store, run: RunIdentity) -> None:
        self._store = store
        self._run = run

    def retry(self, shard: Shard, complete: CompletedShard, retry_rows: RetryRows, attempt: str) -> CommitResult:
        return replace_rows(self._store, self._run, shard, retry_rows, complete.fragments, attempt)

    def commit(self, shard: Shard, complete: CompletedShard, attempt: str) -> CommitResult:
        return commit_shard(self._store, self._run, shard, complete.num_images, complete.fragments, attempt)


class Commits:
    """Submits commits and hands out their results."""

    def __init__(self, store: Store, run: RunIdentity, num_cpus: int) -> None:
        here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # No CPU of their own: readers may hold all of them while they wait for the engines.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": THREADS}
        committer: Any = ray.remote(_Committer)
        actors = [
            committer.options(**options, scheduling_strategy=here).remote(store, run)
            for _ in range(1 + num_cpus // CPUS_PER_ACTOR)
        ]
        self._next: Iterator[Any] = itertools.cycle(actors)
        self._under_way: dict[Any, tuple[str, float]] = {}
        self.ended: set[str] = set()
        """Shards whose file stands under captions/."""

    def __len__(self) -> int:
        return len(self._under_way)

    def submit(self, work: ShardTask, complete: CompletedShard) -> None:
        shard, retry_rows, actor, attempt = work.shard, work.retry_rows, next(self._next), uuid.uuid4().hex
        # The attempt is named here, so that a commit that Ray repeats after its actor died knows its own file again.
        if retry_rows is None:
            task = actor.commit.remote(shard, complete, attempt)
        else:
            task = actor.retry.remote(shard, complete, retry_rows, attempt)
        self._under_way[task] = (shard.path, time.monotonic())

    def finished(self) -> Iterator[tuple[CommitResult, float]]:
        """Yield the results that have come, with the seconds that each took; raises what a commit raised."""
        tasks = list(self._under_way)
        ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        for task in ready:
            result: CommitResult = ray.get(task)
            shard, submitted_at = self._under_way.pop(task)
            self.ended.add(shard)
            yield result, time.monotonic() - submitted_at
