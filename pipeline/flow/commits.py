"""Commits under way: one Ray task each, many at once, off the driver's own hands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import ray

from pipeline.ledger.commit import CommitResult, commit_shard
from pipeline.ledger.footer import RunFacts
from pipeline.ledger.open_shards import Complete
from pipeline.storage import Store
from schemas.shard import Shard

# No CPU of their own: readers may hold all of them while they wait for the engines.
_commit: Any = ray.remote(num_cpus=0, max_retries=3)(commit_shard)


class Commits:
    """Submits commits and hands out their results."""

    def __init__(self, store: Store, run: RunFacts) -> None:
        self._store = store
        self._run = run
        self._under_way: dict[Any, str] = {}
        self.ended: set[str] = set()
        """Shards whose file stands under captions/."""

    def __len__(self) -> int:
        return len(self._under_way)

    def submit(self, shard: Shard, complete: Complete) -> None:
        # Given here, so that a commit that Ray repeats after its worker died knows its own file again.
        attempt = uuid.uuid4().hex
        task = _commit.remote(self._store, self._run, shard, complete.num_images, complete.fragments, attempt)
        self._under_way[task] = shard.path

    def finished(self) -> Iterator[CommitResult]:
        """Yield the results that have come; raises what a commit raised."""
        tasks = list(self._under_way)
        ready, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        for task in ready:
            result: CommitResult = ray.get(task)
            self.ended.add(self._under_way.pop(task))
            yield result
