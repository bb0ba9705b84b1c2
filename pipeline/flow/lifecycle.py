"""Writes the run's lifecycle events (START, RUNNING, COMPLETE, ABORT, FAIL) to the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.config import without_secrets
from pipeline.errors import Interrupted, PipelineError
from pipeline.flow.progress import Report, Snapshot
from pipeline.flow.run_result import RunResult
from pipeline.ledger.run_events import RunInfo, RunLog
from schemas.run_event import EventType, RunProgress

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob


@contextmanager
def record_lifecycle(prepared: PreparedJob, result: RunResult, report: Report) -> Iterator[Report]:
    """Yield a report that also records heartbeats; at the end record how the run ended, after an error too."""
    info = RunInfo(
        sources=prepared.job.source.read_from,
        source_bytes=sum(shard.size for shard in prepared.plan.shards.values()),
        shards=len(prepared.plan.shards),
        recipe=prepared.recipe.fingerprint,
        versions=prepared.run_identity.versions,
        part=str(prepared.part) if prepared.part else None,
    )
    log = RunLog(prepared.store, info)
    log.start()

    def report_and_record(snapshot: Snapshot) -> None:
        report(snapshot)
        log.heartbeat(_run_progress(snapshot, result))

    try:
        yield report_and_record
    except BaseException as err:
        event = EventType.ABORT if isinstance(err, Interrupted | KeyboardInterrupt) else EventType.FAIL
        message = without_secrets(str(err)) or type(err).__name__
        log.end(event, err.exit_code if isinstance(err, PipelineError) else 1, message)
        raise
    log.end(EventType.COMPLETE, result.exit_code, None)


def _run_progress(snapshot: Snapshot, result: RunResult) -> RunProgress:
    return RunProgress(
        seconds=snapshot.seconds,
        shards=snapshot.shards,
        shards_done=snapshot.shards_done,
        shards_quarantined=len(result.shards_quarantined),
        shards_lost=len(result.shards_lost),
        images=snapshot.images_done,
        captions=snapshot.captions,
        statuses=snapshot.statuses,
        skipped=dict(result.skipped),
        bytes_done=snapshot.bytes_done,
        bytes_total=snapshot.bytes_total,
        captions_per_s=snapshot.captions_per_s,
        eta_s=snapshot.eta_s,
        replicas=snapshot.replicas,
        engines=snapshot.setups,
    )
