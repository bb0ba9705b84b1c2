"""Writes the run's lifecycle events (START, RUNNING, COMPLETE, ABORT, FAIL) to the output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.config import without_secrets
from pipeline.errors import Interrupted, PipelineError
from pipeline.flow.progress import Snapshot
from pipeline.ledger.run_events import RunInfo, RunLog
from schemas.run_event import EventType, RunProgress

if TYPE_CHECKING:
    from pipeline.flow.driver import RunResult
    from pipeline.flow.prepared_job import PreparedJob


@contextmanager
def record_lifecycle(
    prepared: PreparedJob, outcome: RunResult, report: Callable[[Snapshot], None]
) -> Iterator[Callable[[Snapshot], None]]:
    """Yield a report that also writes heartbeats; at the end write how the run ended, whatever ended it."""
    log = RunLog(prepared.store, _about(prepared))
    log.start()

    def tell(snapshot: Snapshot) -> None:
        report(snapshot)
        log.heartbeat(_moment(snapshot, outcome))

    try:
        yield tell
    except BaseException as err:
        how = EventType.ABORT if isinstance(err, Interrupted | KeyboardInterrupt) else EventType.FAIL
        message = without_secrets(str(err)) or type(err).__name__
        log.end(how, err.exit_code if isinstance(err, PipelineError) else 1, message)
        raise
    log.end(EventType.COMPLETE, outcome.exit_code, None)


def _about(prepared: PreparedJob) -> RunInfo:
    return RunInfo(
        sources=prepared.job.source.urls,
        source_bytes=sum(shard.size for shard in prepared.plan.shards.values()),
        shards=len(prepared.plan.shards),
        recipe=prepared.recipe.fingerprint,
        versions=prepared.run_facts.versions,
    )


def _moment(snapshot: Snapshot, outcome: RunResult) -> RunProgress:
    return RunProgress(
        seconds=snapshot.seconds,
        shards=snapshot.shards,
        shards_done=snapshot.shards_done,
        shards_quarantined=len(outcome.shards_quarantined),
        shards_lost=len(outcome.shards_lost),
        images=snapshot.images_done,
        captions=snapshot.captions,
        statuses=snapshot.statuses,
        bytes_done=snapshot.bytes_done,
        bytes_total=snapshot.bytes_total,
        captions_per_s=snapshot.captions_per_s,
        eta_s=snapshot.eta_s,
        replicas=snapshot.replicas,
        engines=snapshot.setups,
    )
