"""The driver: starts the Ray Data pipeline, counts its receipts, and commits completed shards.

The remaining work is always `planned - committed`, read from the output itself, so a driver may be killed at any line;
the next run resumes from the staged fragments.
"""

import logging
import pickle
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ray.exceptions import RayError

from pipeline.errors import Interrupted, NothingDone, PipelineError
from pipeline.flow.arenas import limit_arenas
from pipeline.flow.cluster import Cluster, ClusterStart, connected
from pipeline.flow.commits import Commits
from pipeline.flow.lifecycle import record_lifecycle
from pipeline.flow.metrics import Metrics, MetricsInput
from pipeline.flow.prepared_job import PreparedJob
from pipeline.flow.progress import Progress, Report, Snapshot
from pipeline.flow.progress_actor import (
    Counts,
    read_counts,
    read_detail,
    read_failures,
    read_left_out,
    start_progress_actor,
)
from pipeline.flow.ray_dataset import FlowSpec, build_dataset
from pipeline.flow.run_result import RunResult
from pipeline.flow.stream import Stream, open_stream, unwrap
from pipeline.flow.watchdog import StartMonitor, Watchdog, stalled_stage
from pipeline.ledger.plan_generations import mark_applied
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.ledger.shard_plan import remaining
from pipeline.ledger.shard_tracker import CompletedShard, Receipt, ShardTracker
from pipeline.readers import add_up
from pipeline.stages.captioning import unpack_receipts
from schemas.batch import BatchKind
from schemas.shard import Shard

log = logging.getLogger(__name__)

POLL_S = 0.5
"""How long the driver waits for receipts before it checks commits, stalls and stop requests; also between reports."""


def run_job(
    prepared: PreparedJob,
    result: RunResult,
    report: Report,
    stop: threading.Event,
    start: ClusterStart | None = None,
) -> None:
    """Caption the remaining shards.

    Args:
        prepared: the job, checked, with its output claimed.
        result: filled while the run works.
        report: called about twice a second.
        stop: set it to end the run early.
        start: of Ray, if it has begun; it is ended with the run.

    Raises:
        Interrupted: `stop` was set.
        Stalled: no stage made progress for `cluster.stall_timeout_s`.
        NothingDone: the source has images, and no caption is ok.
        PipelineError: any other error that ended the run.
    """
    if not prepared.tasks:
        if start is not None:  # the work was done by another run meanwhile
            start.end()
        return
    with record_lifecycle(prepared, result, report) as report_and_record:
        _run(prepared, result, report_and_record, stop, start)
        record_applied(prepared, result)
        _refuse_nothing(prepared, result)


def _run(
    prepared: PreparedJob, result: RunResult, report: Report, stop: threading.Event, start: ClusterStart | None
) -> None:
    started = time.monotonic()
    limit_arenas()
    try:
        with connected(prepared.job.cluster, prepared.job.logs, stop, start) as cluster:
            result.worker_logs = cluster.logs
            _Driver(prepared, result, cluster).drive(report, stop)
    except RayError as err:
        raise unwrap(err) from err
    finally:
        result.seconds = time.monotonic() - started


def record_applied(prepared: PreparedJob, result: RunResult) -> None:
    """Record that every row which a changed selection selects has its captions, unless a shard has to be done again."""
    if prepared.unapplied is None:
        return
    screened = {task.shard.path for task in prepared.tasks if task.retry_rows and task.retry_rows.screened}
    if not screened.intersection([*result.shards_lost, *result.shards_quarantined]):
        mark_applied(prepared.store, prepared.unapplied)


def _refuse_nothing(prepared: PreparedJob, result: RunResult) -> None:
    """Fail a run that met images or unreadable shards and has no ok caption, although no error ended it."""
    if result.shards_before or result.shards_lost or result.statuses["ok"]:
        return
    if result.images or result.shards_quarantined:
        statuses = ", ".join(f"{num_rows} {status}" for status, num_rows in result.statuses.items())
        skipped = "".join(f"{num_rows} rows skipped by {name}; " for name, num_rows in result.skipped_by_most())
        raise NothingDone(
            f"{prepared.job.output}: no caption is ok: {result.images} images committed with rows {statuses}; {skipped}"
            f"{len(result.shards_quarantined)} shards in quarantine. See the columns reason and message of the rows "
            "and the messages of the quarantined shards"
        )


class _Driver:
    def __init__(self, prepared: PreparedJob, result: RunResult, cluster: Cluster) -> None:
        self._prepared = prepared
        self._result = result
        self._tasks = {task.shard.path: task for task in prepared.tasks}
        self._tracker = ShardTracker(
            {task.shard.path: task.retry_rows.rows for task in prepared.tasks if task.retry_rows}
        )
        self._commits = Commits(prepared.store, prepared.run_identity, cluster.num_cpus)
        self._progress = Progress.start(prepared)
        self._progress_actor: Any = start_progress_actor()
        self._counts = Counts()
        self._metrics = Metrics(prepared.store.url)
        self._is_lean = cluster.is_lean
        self._gpus_per_replica = cluster.gpus_per_replica(prepared.job.engine)
        self._reported_at = 0.0
        spec = FlowSpec(
            read=prepared.read_spec,
            caption=prepared.caption_spec,
            engine=prepared.engine_spec,
            store=prepared.store,
            earlier=tuple(prepared.earlier),
            progress_actor=self._progress_actor,
        )
        self._dataset = build_dataset(spec, prepared.tasks, cluster)

    def drive(self, report: Report, stop: threading.Event) -> None:
        watchdog, start_monitor = Watchdog(self._prepared.job.cluster.stall_timeout_s), StartMonitor()
        with open_stream(self._dataset, is_lean=self._is_lean) as stream:
            while not (stream.ended and not len(self._commits)):
                self._step(stream, report)
                start_monitor.check(self._counts.starts)
                self._check_stall(watchdog)
                if stop.is_set():
                    self._drain(stream, report)
                    return
        self._report(report, at_once=True)
        self._result.left_out = add_up(sorted(read_left_out(self._progress_actor).items()))
        self._check_end()

    def _check_stall(self, watchdog: Watchdog) -> None:
        commits_under_way = len(self._commits)
        progress = (self._counts, self._progress.shards_ended, commits_under_way)
        watchdog.check(progress, stalled_stage(self._counts, commits_under_way))

    def _step(self, stream: Stream, report: Report) -> int:
        """Process the receipts and commits that have arrived; return their number."""
        num_processed = 0
        for block in stream.blocks(POLL_S):
            for receipt in unpack_receipts(block):
                self._process_receipt(receipt)
                num_processed += 1
        num_processed += self._process_commits()
        self._report(report)
        return num_processed

    def _process_receipt(self, receipt: Receipt) -> None:
        task = self._tasks[receipt.shard]
        # The plan's string object: each receipt brings its own copy, which the finished shards would keep in memory.
        receipt = replace(receipt, shard=task.shard.path)
        if receipt.kind == BatchKind.FATAL:
            raise pickle.loads(receipt.error or b"")
        if receipt.kind == BatchKind.DRAINED:
            return
        if receipt.kind == BatchKind.UNREADABLE:
            self._quarantine(task.shard, receipt.message or "", receipt.traceback)
            return
        if receipt.kind == BatchKind.COMMITTED:
            self._commits.submit(task, CompletedShard(task.shard.path, receipt.num_images, ()))
            return
        self._commits.start()
        completed = self._tracker.add(receipt)
        self._progress.add_receipt(receipt)
        if completed is not None:
            self._commits.submit(task, completed)

    def _quarantine(self, shard: Shard, message: str, traceback: str | None) -> None:
        record = Quarantined(
            shard=shard.path,
            message=message,
            attempts=1,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=self._prepared.run_identity.versions,
            traceback=traceback,
        )
        put_quarantine(self._prepared.store, record)
        self._tracker.drop(shard.path)
        self._progress.end_shard(shard)
        self._result.shards_quarantined[shard.path] = message
        log.warning("shard=%s quarantined: %s", shard.path, message)

    def _process_commits(self) -> int:
        commits = list(self._commits.finished())
        for commit, seconds in commits:
            self._metrics.commit(seconds)
            self._progress.end_shard(self._tasks[commit.shard].shard)
            if not commit.won:
                self._result.shards_lost.append(commit.shard)
                log.warning("shard=%s was committed by another run", commit.shard)
                continue
            self._result.shards_committed += 1
            self._result.images += commit.num_images
            for status, num_rows in commit.statuses.items():
                self._result.statuses[status] = self._result.statuses.get(status, 0) + num_rows
            for condition, num_rows in commit.skipped.items():
                self._result.skipped[condition] = self._result.skipped.get(condition, 0) + num_rows
            log.info("shard=%s images=%d %s", commit.shard, commit.num_images, dict(commit.statuses))
        return len(commits)

    def _report(self, report: Report, *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() - self._reported_at < POLL_S:
            return
        self._reported_at = time.monotonic()
        self._result.images_resumed = self._progress.images_resumed
        self._result.images_captioned = self._progress.images_done
        self._result.captions_taken_over = self._progress.num_taken_over
        self._counts = read_counts(self._progress_actor) or self._counts
        snapshot = self._progress.now(self._counts)
        report(snapshot)
        if at_once or self._metrics.due:
            self._publish_metrics(snapshot)

    def _publish_metrics(self, snapshot: Snapshot) -> None:
        details = read_detail(self._progress_actor)
        if details is None:
            return
        self._metrics.publish(
            MetricsInput(
                snapshot=snapshot,
                counts=self._counts,
                details=details,
                result=self._result,
                commits_under_way=len(self._commits),
                gpus_per_replica=self._gpus_per_replica,
            )
        )

    def _drain(self, stream: Stream, report: Report) -> None:
        """Start no new requests; let requests in flight finish and be committed within `cluster.drain_timeout_s`.

        Raises:
            Interrupted: shards are unfinished after the drain.
        """
        drain_timeout_s = self._prepared.job.cluster.drain_timeout_s
        deadline = time.monotonic() + drain_timeout_s
        log.info("draining: %d images are in flight; waiting at most %g s", self._counts.in_flight, drain_timeout_s)
        num_idle_steps, has_stopped = 0, False
        # A receipt needs a moment from the engine to the driver, so one idle step does not prove that none will come.
        while num_idle_steps < 2 and time.monotonic() < deadline:
            self._progress_actor.stop.remote()
            self._reported_at = 0.0  # so that this step reads the counts again
            num_processed = self._step(stream, report)
            if not (has_stopped or self._counts.not_stopped):
                log.info("drain: no replica starts further requests")
                has_stopped = True
            idle = not (num_processed or len(self._commits) or self._counts.in_flight or self._counts.not_stopped)
            num_idle_steps = num_idle_steps + 1 if idle else 0
        self._report(report, at_once=True)
        if not self._unfinished():
            return
        num_committed = self._result.shards_before + self._result.shards_committed + len(self._result.shards_lost)
        raise Interrupted(
            f"{self._prepared.job.output}: stopped with {num_committed} of {self._result.shards_planned} shards "
            f"committed; {self._counts.in_flight} images were in flight and will be requested again. Run the same "
            "command again to resume"
        )

    def _unfinished(self) -> set[str]:
        return self._tasks.keys() - self._commits.committed - self._result.shards_quarantined.keys()

    def _check_end(self) -> None:
        unfinished = self._unfinished()
        # After another run committed a shard and removed its fragments, a reader that Ray repeats may fail on them.
        lost = committed_elsewhere(self._prepared, unfinished) if unfinished else []
        self._result.shards_lost += lost
        unfinished -= set(lost)
        if unfinished:
            failures = read_failures(self._progress_actor)
            first = min(unfinished, key=lambda shard: (shard not in failures, shard))
            reason = f" (its reader failed with {failures[first]})" if first in failures else ""
            num_missing = self._tracker.incomplete().get(first, "all")
            raise PipelineError(
                f"{self._prepared.job.output}: the run ended with {len(unfinished)} shards unfinished, such as "
                f"{first}: {num_missing} of its images never arrived{reason}. Run the same command again to resume"
            )


def committed_elsewhere(prepared: PreparedJob, unfinished: Collection[str]) -> list[str]:
    """Return the unfinished shards that another run has committed."""
    committed = remaining(prepared.store, prepared.plan).committed
    # The shards of a retry were committed before it started.
    new_shards = [task.shard.path for task in prepared.tasks if task.retry_rows is None]
    return sorted(committed.intersection(new_shards, unfinished))
