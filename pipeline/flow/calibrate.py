"""How fast the machine at hand captions: the job itself on a few of its images, into a folder of the caller's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import JobConfig
from pipeline.cost import Tokens, guess_tokens, staged_tokens
from pipeline.errors import Interrupted, NothingDone
from pipeline.flow.driver import RunResult, run_job
from pipeline.flow.prepared_job import PreparedJob, prepare_job
from pipeline.flow.progress import Snapshot
from pipeline.flow.shard_task import ShardTask

log = logging.getLogger(__name__)

PARTS = 24
"""Batches that the images come in: fewer would make the rate a matter of which batch ended last."""

SHARDS = 64
"""From which images are taken, evenly spread over the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured."""

    images: int
    images_per_s: float
    """From the first images that were staged to the last."""
    start_s: float
    """From the start of Ray until images flow at that rate."""
    tokens: Tokens


class _Stop(threading.Event):
    """Set when enough images are done, or with the event of the caller."""

    def __init__(self, asked: threading.Event) -> None:
        super().__init__()
        self._asked = asked

    def is_set(self) -> bool:
        return super().is_set() or self._asked.is_set()


def prepare_trial(job: JobConfig, num_images: int, folder: str) -> PreparedJob:
    """Return the job with its batches cut for `num_images` images, and its output in `folder`."""
    batch = max(1, min(job.engine.batch_images, num_images // PARTS))
    engine = job.engine.model_copy(update={"batch_images": batch})
    cluster = job.cluster.model_copy(update={"drain_timeout_s": 0})
    prepared = prepare_job(job.model_copy(update={"output": folder, "engine": engine, "cluster": cluster}))
    return replace(prepared, works=spread_evenly(prepared.works))


def calibrate(trial: PreparedJob, num_images: int, asked: threading.Event) -> Calibration:
    """Caption `num_images` of the trial's images with its engine, on its cluster, and stop.

    Args:
        trial: of `prepare_trial`.
        num_images: as given to it.
        asked: set it to end early.

    Raises:
        Interrupted: `asked` was set.
        NothingDone: the source ended before a rate could be told.
        PipelineError: as `run_job`.
    """
    stop, seen = _Stop(asked), list[Snapshot]()

    def report(snapshot: Snapshot) -> None:
        if snapshot.images_done and (not seen or snapshot.images_done > seen[-1].images_done):
            seen.append(snapshot)
        if snapshot.images_done >= num_images:
            stop.set()

    try:
        run_job(trial, RunResult.of(trial), report, stop)
    except Interrupted:
        if asked.is_set():
            raise Interrupted("stopped while calibrating; nothing was written; run the same command again") from None
        log.info("calibration: stopped after %d images", seen[-1].images_done)
    return _measured(seen, staged_tokens(trial.store, guess_tokens(trial.job)), num_images)


def spread_evenly(works: Sequence[ShardTask]) -> list[ShardTask]:
    """Return shards from the whole of the source: neighbours are often alike."""
    step = max(1, len(works) // SHARDS)
    return [work for first in range(step) for work in works[first::step]]


def _measured(seen: Sequence[Snapshot], tokens: Tokens, asked: int) -> Calibration:
    first, last = seen[0], seen[-1]
    if last.images_done <= first.images_done:
        raise NothingDone(
            f"--calibrate {asked}: {last.images_done} images came in one piece, so there is no rate to tell; "
            "ask for more images, or give a source that has them"
        )
    rate = (last.images_done - first.images_done) / (last.seconds - first.seconds)
    return Calibration(
        images=last.images_done,
        images_per_s=rate,
        start_s=max(0.0, first.seconds - first.images_done / rate),
        tokens=tokens,
    )
