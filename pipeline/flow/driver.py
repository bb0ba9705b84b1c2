"""The driver: plans, feeds Ray, counts receipts, commits finished shards, and holds nothing else.

What is left to do is always `planned - committed`, read from the output itself, so a driver may die
at any line; the next one goes on from what is staged.
"""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ray.exceptions import RayError

from pipeline.errors import Interrupted, NothingDone, PipelineError
from pipeline.flow.arenas import limit_arenas
from pipeline.flow.cluster import Cluster, connected
from pipeline.flow.commits import Commits
from pipeline.flow.lifecycle import record_lifecycle
from pipeline.flow.metrics import Metrics, MetricsInput
from pipeline.flow.prepared_job import PreparedJob
from pipeline.flow.progress import Progress, Snapshot
from pipeline.flow.progress_actor import (
    Counts,
    read_counts,
    read_detail,
    read_failures,
    read_left_out,
    start_progress_actor,
)
from pipeline.flow.ray_dataset import FlowSpec, build_dataset
from pipeline.flow.stream import Stream, open_stream, unwrap
from pipeline.flow.watchdog import Watchdog, stalled_stage
from pipeline.ledger.quarantine import Quarantined, list_quarantine, put_quarantine
from pipeline.ledger.shard_plan import remaining
from pipeline.ledger.shard_tracker import CompletedShard, Receipt, ShardTracker
from pipeline.readers import LeftOut, add_up
from schemas.batch import BatchKind
from schemas.shard import Shard
from schemas.status import no_rows

log = logging.getLogger(__name__)

POLL_S = 0.5
"""How often the driver looks up from waiting for receipts."""


@dataclass(kw_only=True)
class RunResult:
    """What a run did. Filled while it runs, so that an interrupted one can tell too."""

    shards_planned: int
    shards_before: int
    """Committed by earlier runs."""
    shards_committed: int = 0
    shards_lost: list[str] = field(default_factory=list)
    """Committed by another run while this one worked on them."""
    shards_quarantined: dict[str, str] = field(default_factory=dict)
    """Shard to reason; those of earlier runs included."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Images inside the shards that this run read which are no rows of their own."""
    images: int = 0
    """In the shards that this run committed."""
    images_captioned: int = 0
    """Staged by this run, in whatever shard."""
    images_resumed: int = 0
    """Taken over from fragments of earlier runs."""
    statuses: dict[str, int] = field(default_factory=no_rows)
    """Caption rows in the shards that this run committed."""
    seconds: float = 0.0
    worker_logs: str | None = None

    @property
    def exit_code(self) -> int:
        """Of a run that no error ended: 3 when shards are in quarantine, else 0."""
        return 3 if self.shards_quarantined else 0

    @classmethod
    def of(cls, prepared: PreparedJob) -> RunResult:
        """Start from what the output holds already."""
        quarantined = {record.shard: record.message for record in list_quarantine(prepared.store)}
        return cls(
            shards_planned=len(prepared.plan.shards),
            shards_before=len(prepared.remaining.committed - {work.shard.path for work in prepared.works}),
            shards_quarantined={shard: quarantined[shard] for shard in prepared.remaining.quarantined},
        )


Report = Callable[[Snapshot], None]


def run_job(prepared: PreparedJob, outcome: RunResult, report: Report, stop: threading.Event) -> None:
    """Caption what is left to do.

    Args:
        prepared: the job, checked, with its output claimed.
        outcome: filled as the run goes on.
        report: called about twice a second.
        stop: set it to end the run early.

    Raises:
        Interrupted: `stop` was set.
        Stalled: no stage moved for `cluster.stall_timeout_s`.
        NothingDone: the source has images, and not one caption came of them.
        PipelineError: what ended the run.
    """
    if not prepared.works:
        return
    with record_lifecycle(prepared, outcome, report) as tell:
        _run(prepared, outcome, tell, stop)
        _refuse_nothing(prepared, outcome)


def _run(prepared: PreparedJob, outcome: RunResult, report: Report, stop: threading.Event) -> None:
    started = time.monotonic()
    limit_arenas()
    try:
        with connected(prepared.job.cluster, prepared.job.logs, stop) as cluster:
            outcome.worker_logs = cluster.logs
            _Driver(prepared, outcome, cluster).drive(report, stop)
    except RayError as err:
        raise unwrap(err) from err
    finally:
        outcome.seconds = time.monotonic() - started


def _refuse_nothing(prepared: PreparedJob, outcome: RunResult) -> None:
    """A source that is not empty and gave no caption at all is a failure, however orderly it went."""
    if outcome.shards_before or outcome.shards_lost or outcome.statuses["ok"]:
        return
    if outcome.images or outcome.shards_quarantined:
        raise NothingDone(
            f"{prepared.job.output}: {outcome.images} images were done, {len(outcome.shards_quarantined)} shards are "
            f"in quarantine, and not one caption is ok: {outcome.statuses}; the rows say why in reason and message"
        )


class _Driver:
    def __init__(self, prepared: PreparedJob, outcome: RunResult, cluster: Cluster) -> None:
        self._prepared = prepared
        self._outcome = outcome
        self._works = {work.shard.path: work for work in prepared.works}
        self._open = ShardTracker({work.shard.path: work.retry_rows.rows for work in prepared.works if work.retry_rows})
        self._commits = Commits(prepared.store, prepared.run_facts, cluster.num_cpus)
        self._progress = Progress.start(prepared)
        self._tally: Any = start_progress_actor()
        self._counts = Counts()
        self._metrics = Metrics(prepared.store.url)
        self._gpus_per_replica = cluster.gpus_per_replica(prepared.job.engine)
        self._shown_at = 0.0
        self._dataset = build_dataset(self._flow_spec(), prepared.works, cluster)

    def _flow_spec(self) -> FlowSpec:
        prepared = self._prepared
        return FlowSpec(
            read=prepared.read_spec,
            caption=prepared.caption_spec,
            engine=prepared.engine_spec,
            store=prepared.store,
            tally=self._tally,
        )

    def drive(self, report: Report, stop: threading.Event) -> None:
        watchdog = Watchdog(self._prepared.job.cluster.stall_timeout_s)
        with open_stream(self._dataset) as stream:
            while not (stream.ended and not len(self._commits)):
                self._step(stream, report)
                self._check_progress(watchdog)
                if stop.is_set():
                    self._drain(stream, report)
                    return
        self._show(report, at_once=True)
        self._outcome.left_out = add_up(sorted(read_left_out(self._tally).items()))
        self._check_end()

    def _check_progress(self, watchdog: Watchdog) -> None:
        commits_under_way = len(self._commits)
        progress = (self._counts, self._progress.shards_ended, commits_under_way)
        watchdog.check(progress, stalled_stage(self._counts, commits_under_way))

    def _step(self, stream: Stream, report: Report) -> int:
        """Take the receipts and commits that have arrived; return their number."""
        moved = 0
        for block in stream.blocks(POLL_S):
            for receipt in block.to_pylist():
                self._take(receipt)
                moved += 1
        moved += self._collect()
        self._show(report)
        return moved

    def _take(self, row: Mapping[str, Any]) -> None:
        work = self._works[row["shard"]]
        # The plan's own text: each receipt brings a copy of it, which would stay with the finished shards.
        receipt = Receipt.from_row({**row, "shard": work.shard.path})
        if receipt.kind == BatchKind.FATAL:
            raise pickle.loads(receipt.error or b"")
        if receipt.kind == BatchKind.SKIPPED:
            return
        if receipt.kind == BatchKind.UNREADABLE:
            self._quarantine(work.shard, receipt.message or "", receipt.traceback)
            return
        if receipt.kind == BatchKind.COMMITTED:
            self._commits.submit(work, CompletedShard(work.shard.path, receipt.num_images, ()))
            return
        complete = self._open.add(receipt)
        self._progress.add_receipt(receipt)
        if complete is not None:
            self._commits.submit(work, complete)

    def _quarantine(self, shard: Shard, message: str, traceback: str | None) -> None:
        record = Quarantined(
            shard=shard.path,
            message=message,
            attempts=1,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=self._prepared.run_facts.versions,
            traceback=traceback,
        )
        put_quarantine(self._prepared.store, record)
        self._open.drop(shard.path)
        self._progress.end_shard(shard)
        self._outcome.shards_quarantined[shard.path] = message
        log.warning("shard=%s quarantined: %s", shard.path, message)

    def _collect(self) -> int:
        results = list(self._commits.finished())
        for result, seconds in results:
            self._metrics.commit(seconds)
            self._progress.end_shard(self._works[result.shard].shard)
            if not result.won:
                self._outcome.shards_lost.append(result.shard)
                log.warning("shard=%s was committed by another run", result.shard)
                continue
            self._outcome.shards_committed += 1
            self._outcome.images += result.num_images
            for status, rows in result.statuses.items():
                self._outcome.statuses[status] = self._outcome.statuses.get(status, 0) + rows
            log.info("shard=%s images=%d %s", result.shard, result.num_images, dict(result.statuses))
        return len(results)

    def _show(self, report: Report, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() - self._shown_at < POLL_S:
            return
        self._shown_at = time.monotonic()
        self._copy_progress()
        self._counts = read_counts(self._tally) or self._counts
        snapshot = self._progress.now(self._counts)
        report(snapshot)
        if at_once or self._metrics.due:
            self._publish(snapshot)

    def _publish(self, snapshot: Snapshot) -> None:
        detail = read_detail(self._tally)
        if detail is None:
            return
        facts = MetricsInput(
            snapshot=snapshot,
            counts=self._counts,
            detail=detail,
            outcome=self._outcome,
            commits_under_way=len(self._commits),
            gpus_per_replica=self._gpus_per_replica,
        )
        self._metrics.publish(facts)

    def _copy_progress(self) -> None:
        self._outcome.images_resumed = self._progress.images_resumed
        self._outcome.images_captioned = self._progress.images_done

    def _drain(self, stream: Stream, report: Report) -> None:
        """Ask nothing new, and let what is in flight be answered, staged and committed within the grace.

        Raises:
            Interrupted: more is left than what was in flight.
        """
        drain_timeout_s = self._prepared.job.cluster.drain_timeout_s
        until = time.monotonic() + drain_timeout_s
        log.info("stopping: %d images are in flight, %g s for them", self._counts.in_flight, drain_timeout_s)
        quiet = 0
        # A receipt takes a moment from the engine to here: one quiet look is not yet the end.
        while quiet < 2 and time.monotonic() < until:
            self._tally.stop.remote()
            self._shown_at = 0.0  # so that the counts are of now
            moved = self._step(stream, report)
            idle = not (moved or len(self._commits) or self._counts.in_flight)
            quiet = quiet + 1 if idle else 0
        self._show(report, at_once=True)
        if not self._left():
            return
        raise Interrupted(
            f"{self._prepared.job.output}: stopped with "
            f"{self._outcome.shards_before + self._outcome.shards_committed + len(self._outcome.shards_lost)} of "
            f"{self._outcome.shards_planned} shards committed; {self._counts.in_flight} images were in flight and are "
            "asked again; run the same command again to go on"
        )

    def _left(self) -> set[str]:
        return self._works.keys() - self._commits.ended - self._outcome.shards_quarantined.keys()

    def _check_end(self) -> None:
        left = self._left()
        # A reader that Ray repeats after another run took its shard's fragments away may not find its place again.
        lost = committed_elsewhere(self._prepared, left) if left else []
        self._outcome.shards_lost += lost
        left -= set(lost)
        if left:
            failures = read_failures(self._tally)
            first = min(left, key=lambda shard: (shard not in failures, shard))
            why = f" (its reader ended with {failures[first]})" if first in failures else ""
            raise PipelineError(
                f"{self._prepared.job.output}: the flow ended with {len(left)} shards unfinished, such as {first}: "
                f"{self._open.incomplete().get(first, 'all')} of its images came not{why}; run again to go on"
            )


def committed_elsewhere(prepared: PreparedJob, left: Collection[str]) -> list[str]:
    """Of the shards that are left, those that another run has committed."""
    committed = remaining(prepared.store, prepared.plan).committed
    # A retry's shards were committed from the start.
    works = [work.shard.path for work in prepared.works if work.retry_rows is None]
    return sorted(committed.intersection(works, left))
