"""How many images travel together, and how many batches a replica has in flight.

Each batch costs the driver the same, whatever its size (docs/benchmarks.md, `driver`). So batches are larger than
fragments where nothing is lost by it: the window of the replica (`pipeline.stages.window`) decides what is asked.
"""

import math
from dataclasses import dataclass

from pipeline.config import EngineConfig, EngineKind
from pipeline.engines.sizing import planned_num_seqs
from pipeline.models import ModelDims

GROWN = 4
"""A grown batch has so many times `engine.batch_images` images."""

GROWN_BYTES = 128 << 20
"""At most so many bytes of pixels: a reader has one such batch in its memory and one in the object store."""

GROWN_REQUESTS = 4
"""At most so many times the requests that the engine decodes together: a batch is for one replica."""

FEED_SHARE = 6
"""Requests in the batches that a replica has in flight, as a multiple of what its engine decodes together. A batch is
in flight until its slowest caption and its retries are done; meanwhile its other images have made room for those of
later batches. With drawn lengths 2 keep an engine 77 to 96 % full and 6 keep it 95 to 100 % (docs/benchmarks.md)."""

SMALL_BATCHES = 2
"""The first batches of the shards that are read first are not grown, so that the engines start early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The sizes of the batches of a run."""

    images: int
    """Of a fragment, and of the first batches."""
    grown_images: int
    """Of later batches."""
    in_flight: int
    """Batches that a replica works on at the same time."""


def plan_batches(engine: EngineConfig, num_seqs: int | None, max_pixels: int, num_slots: int) -> BatchPlan:
    """Return the sizes that keep the engines full; as the config says where it gives `batches_in_flight`.

    Args:
        engine: of the job.
        num_seqs: requests that a replica's engine decodes together; None: as many as it gets.
        max_pixels: of a decoded image; 0 for a model that takes none.
        num_slots: captions an image.
    """
    images = engine.batch_images
    if engine.batches_in_flight is not None:
        return BatchPlan(images=images, grown_images=images, in_flight=engine.batches_in_flight)
    times = min(GROWN, GROWN_BYTES // max(1, images * max_pixels * 3))
    if num_seqs is None:
        return BatchPlan(images=images, grown_images=images * max(1, times), in_flight=2)
    grown = images * max(1, min(times, GROWN_REQUESTS * num_seqs // (images * num_slots)))
    return BatchPlan(images=images, grown_images=grown, in_flight=batches_to_feed(num_seqs, grown, num_slots))


def seqs_to_feed(engine: EngineConfig, dims: ModelDims | None, *, gpu: bool) -> int | None:
    """Return `num_seqs` for `plan_batches`: the pool has one number for all cards, that of the largest."""
    if engine.kind is EngineKind.ECHO:
        return engine.max_num_seqs
    return max(planned_num_seqs(engine.on(card), dims, gpu=gpu) for card in (None, *engine.per_accelerator))


def batches_to_feed(num_seqs: int, batch_images: int, num_slots: int) -> int:
    """Return the batches of so many images that a replica must have in flight for its engine to be full."""
    return 1 + math.ceil(FEED_SHARE * num_seqs / (batch_images * num_slots))
