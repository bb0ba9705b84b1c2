"""The driver of an index: one item of work per shard, over the cluster; each item commits its own file.

The remaining work is planned minus indexed minus quarantined shards, read from the output itself, so a driver may be
killed at any line; the next run reads the shards again that have no rows yet.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.config import LogFormat
from pipeline.flow.cluster import connected
from pipeline.flow.parallel_map import parallel_map
from pipeline.flow.prepared_index import PreparedIndex
from pipeline.flow.prepared_job import versions
from pipeline.flow.progress_actor import ShardStart, result_or_none, start_progress_actor
from pipeline.ledger.index_files import IndexCommit, commit_rows, existing_rows
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.readers import LeftOut, add_up
from pipeline.stages.index_rows import IndexSpec, UnreadableShard, index_shard
from pipeline.storage import Store, WriteResult
from schemas.shard import Shard

log = logging.getLogger(__name__)


@dataclass(slots=True)
class IndexResult:
    """What an index run has done so far."""

    num_shards: int = 0
    """Indexed by this run."""
    num_elsewhere: int = 0
    """Indexed by another run at the same time."""
    num_images: int = 0
    num_errors: int = 0
    """Images that cannot be read."""
    num_bytes: int = 0
    """Of the encoded images."""
    quarantined: dict[str, str] = field(default_factory=dict[str, str])
    """Shard to what was found."""
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    """Images that are not rows."""
    seconds: float = 0.0


Report = Callable[[IndexResult], None]
"""Called after each shard."""


@dataclass(frozen=True, slots=True)
class _Done:
    """The result of one shard: its committed file, or the reason why it was not read."""

    shard: str
    commit: IndexCommit | None
    unreadable: UnreadableShard | None
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _IndexShard:
    """Reads a shard and commits its rows, in a process of Ray; pickles."""

    spec: IndexSpec
    store: Store
    fingerprint: str
    run: uuid.UUID
    progress_actor: Any

    def __call__(self, shard: Shard) -> _Done:
        # Of this run and shard: a worker that is started again after its commit recognises its own file.
        attempt = uuid.uuid5(self.run, shard.path.encode("utf-8", "backslashreplace").decode()).hex
        existing = existing_rows(self.store, self.fingerprint, shard, attempt)
        if existing is not None:
            return _Done(shard.path, existing, None)
        start: ShardStart | None = result_or_none(self.progress_actor.begin_shard.remote(shard.path))
        # A repeated item opens images in another process: one of them may have killed the worker.
        read = index_shard(self.spec, shard, isolated=start is not None and start.times > 1)
        if isinstance(read, UnreadableShard):
            return _Done(shard.path, None, read)
        commit = commit_rows(self.store, self.fingerprint, shard, read.table, attempt)
        return _Done(shard.path, commit, None, read.left_out)


def run_index(prepared: PreparedIndex, result: IndexResult, report: Report, stop: threading.Event) -> None:
    """Index the remaining shards.

    Args:
        prepared: the index, checked, with its output claimed.
        result: filled while the run works.
        report: called after each shard.
        stop: set it to end the run early.

    Raises:
        Interrupted: `stop` was set.
        Stalled: no shard was finished for `cluster.stall_timeout_s`.
        PipelineError: any other error that ended the run.
    """
    if not prepared.todo:
        return
    started = time.monotonic()
    left_out: list[tuple[str, tuple[LeftOut, ...]]] = []
    config = prepared.config.cluster
    try:
        with connected(config, LogFormat.TEXT, stop) as cluster:
            work = _IndexShard(
                spec=prepared.spec,
                store=prepared.store,
                fingerprint=prepared.recipe.fingerprint,
                run=uuid.uuid4(),
                progress_actor=start_progress_actor(),
            )
            for done in parallel_map(work, prepared.todo, cluster, stop, config.stall_timeout_s):
                _count(prepared, result, done)
                left_out.append((done.shard, done.left_out))
                result.seconds = time.monotonic() - started
                report(result)
    finally:
        result.left_out = add_up(sorted(left_out))


def _count(prepared: PreparedIndex, result: IndexResult, done: _Done) -> None:
    if done.unreadable is not None:
        _quarantine(prepared, done.shard, done.unreadable)
        result.quarantined[done.shard] = done.unreadable.message
        return
    assert done.commit is not None
    if done.commit.outcome is WriteResult.EXISTS:
        result.num_elsewhere += 1
        log.warning("shard=%s was indexed by another run", done.shard)
        return
    result.num_shards += 1
    result.num_images += done.commit.num_images
    result.num_errors += done.commit.num_errors
    result.num_bytes += done.commit.num_bytes


def _quarantine(prepared: PreparedIndex, shard: str, unreadable: UnreadableShard) -> None:
    record = Quarantined(
        shard=shard,
        message=unreadable.message,
        attempts=1,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        traceback=unreadable.traceback,
    )
    put_quarantine(prepared.store, record)
    log.warning("shard=%s quarantined: %s", shard, unreadable.message)
