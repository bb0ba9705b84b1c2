"""How fast the machine at hand captions: the job itself on a few of its images, into a folder that is then removed."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import JobConfig
from pipeline.cost import Tokens, guess_tokens, staged_tokens
from pipeline.errors import Interrupted, NothingDone
from pipeline.flow.driver import RunResult, run_job
from pipeline.flow.prepared_job import prepare_job
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


def calibrate(job: JobConfig, num_images: int) -> Calibration:
    """Caption `num_images` of the job's images with its engine, on its cluster, and stop.

    Raises:
        NothingDone: the source ended before a rate could be told.
        PipelineError: as `run_job`.
    """
    with tempfile.TemporaryDirectory(prefix="joyfleet-calibrate-") as folder:
        batch = max(1, min(job.engine.batch_images, num_images // PARTS))
        engine = job.engine.model_copy(update={"batch_images": batch})
        cluster = job.cluster.model_copy(update={"drain_timeout_s": 0})
        trial = job.model_copy(update={"output": folder, "engine": engine, "cluster": cluster})
        prepared = prepare_job(trial)
        prepared = replace(prepared, works=spread_evenly(prepared.works))
        stop, seen = threading.Event(), list[Snapshot]()

        def report(snapshot: Snapshot) -> None:
            if snapshot.images_done and (not seen or snapshot.images_done > seen[-1].images_done):
                seen.append(snapshot)
            if snapshot.images_done >= num_images:
                stop.set()

        try:
            run_job(prepared, RunResult.of(prepared), report, stop)
        except Interrupted:
            log.info("calibration: stopped after %d images", seen[-1].images_done)
        return _measured(seen, staged_tokens(prepared.store, guess_tokens(job)), num_images)


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
