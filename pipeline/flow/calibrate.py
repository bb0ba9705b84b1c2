"""Measures the caption rate of this machine: runs the job on a few of its images, into a temporary output."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import JobConfig
from pipeline.cost import Tokens, guess_tokens, staged_tokens
from pipeline.errors import Interrupted, NothingDone
from pipeline.flow.driver import run_job
from pipeline.flow.prepared_job import PreparedJob, prepare_job
from pipeline.flow.progress import Snapshot
from pipeline.flow.run_result import RunResult
from pipeline.flow.shard_task import ShardTask

log = logging.getLogger(__name__)

NUM_BATCHES = 24
"""Batches of a trial: with fewer, the rate would depend on which batch is the last to finish."""

SPREAD_SHARDS = 64
"""The first so many shards of a trial are evenly spread over the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The measured rate."""

    images: int
    images_per_s: float
    """Between the first and the last images that were staged."""
    start_s: float
    """From the start of Ray until images are staged at that rate."""
    tokens: Tokens


class _Stop(threading.Event):
    """Set when enough images are staged, or when the caller's event is set."""

    def __init__(self, caller_stop: threading.Event) -> None:
        super().__init__()
        self._caller_stop = caller_stop

    def is_set(self) -> bool:
        return super().is_set() or self._caller_stop.is_set()


def prepare_trial(job: JobConfig, num_images: int, folder: str) -> PreparedJob:
    """Prepare the job with batches small enough for `num_images` images, and with its output in `folder`."""
    batch = max(1, min(job.engine.batch_images, num_images // NUM_BATCHES))
    engine = job.engine.model_copy(update={"batch_images": batch})
    cluster = job.cluster.model_copy(update={"drain_timeout_s": 0})
    # Captions that are taken over would be measured as if the engine wrote them.
    trial = {"output": folder, "engine": engine, "cluster": cluster, "reuse": ()}
    prepared = prepare_job(job.model_copy(update=trial))
    return replace(prepared, tasks=_spread_evenly(prepared.tasks))


def calibrate(trial: PreparedJob, num_images: int, stop: threading.Event) -> Calibration:
    """Caption `num_images` of the trial's images with its engine, on its cluster.

    Args:
        trial: from `prepare_trial`.
        num_images: as given to `prepare_trial`.
        stop: set it to end early.

    Raises:
        Interrupted: `stop` was set.
        NothingDone: too few images were staged to measure a rate.
        PipelineError: as `run_job`.
    """
    trial_stop, snapshots = _Stop(stop), list[Snapshot]()

    def report(snapshot: Snapshot) -> None:
        if snapshot.images_done and (not snapshots or snapshot.images_done > snapshots[-1].images_done):
            snapshots.append(snapshot)
        if snapshot.images_done >= num_images:
            trial_stop.set()

    try:
        run_job(trial, RunResult.of(trial), report, trial_stop)
    except Interrupted:
        if stop.is_set():
            raise Interrupted("stopped while calibrating; nothing was written; run the same command again") from None
        log.info("calibration: stopped after %d images", snapshots[-1].images_done)
    return _measured(snapshots, staged_tokens(trial.store, guess_tokens(trial.job)), num_images)


def _spread_evenly(tasks: Sequence[ShardTask]) -> list[ShardTask]:
    """Return all tasks, first some from the whole source: neighbouring shards are often alike."""
    step = max(1, len(tasks) // SPREAD_SHARDS)
    return [task for first in range(step) for task in tasks[first::step]]


def _measured(snapshots: Sequence[Snapshot], tokens: Tokens, num_images: int) -> Calibration:
    """Return the calibration; `snapshots` have increasing numbers of images."""
    if len(snapshots) < 2:
        num_staged = snapshots[0].images_done if snapshots else 0
        raise NothingDone(
            f"--calibrate {num_images}: {num_staged} images were staged, all at once, which gives no rate; give a "
            "larger number, or a source with more images"
        )
    first, last = snapshots[0], snapshots[-1]
    rate = (last.images_done - first.images_done) / (last.seconds - first.seconds)
    return Calibration(
        images=last.images_done,
        images_per_s=rate,
        start_s=max(0.0, first.seconds - first.images_done / rate),
        tokens=tokens,
    )
