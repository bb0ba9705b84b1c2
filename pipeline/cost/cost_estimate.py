"""Estimate hours, money, bytes and requests from the numbers of images and tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.config import EngineKind, JobConfig
from pipeline.cost.token_estimate import Tokens
from pipeline.engines.batch_plan import plan_batches
from pipeline.engines.gpus import GPUS
from pipeline.engines.roofline import fits, roofline
from pipeline.models import family_of, planned_dims

ROW_BYTES = 100
"""Of a committed caption row without its text: keys, hashes, prompt and seeds, compressed. The demo's 480 rows in one
file take 84 each, the schema's 9 kB included; there two rows share an image's hash."""
TEXT_SHARE = 0.4
"""Of a caption's characters that zstd leaves: a guess for English prose. The stand-in's captions, which repeat
themselves, leave 0.15."""

LIST_KEYS = 1000
"""Of one LIST answer of S3."""

PIXEL_BYTES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The remaining work."""

    shards: int
    bytes: int
    images: int
    largest_shard_bytes: int
    shards_planned: int
    remote_source: bool
    requests_per_image: float | None = None
    """None: one for each caption of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A captioning speed and its source."""

    name: str
    """A GPU, or `machine`."""
    images_per_s: float
    gpus: float
    source: str
    start_s: float = 0.0
    """Until the first image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """The duration of the work at one rate."""

    name: str
    images_per_s: float
    source: str
    hours: float
    """Of one GPU, or of this machine."""
    gpu_hours: float
    cost: float | None
    """None without a price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job will take."""

    captions: int
    prompt_tokens: float
    caption_tokens: float
    times: Sequence[Time]
    output_bytes: float
    staging_bytes: float
    """Maximum, if all shards were in flight at the same time; usually the share of a few shards."""
    object_store_bytes: float
    """Of Ray, on the nodes of the engines together: decoded images in flight."""
    disk_bytes_per_reader: int
    """A remote shard is copied to the local disk while it is read."""
    requests: Mapping[str, int]
    """To source and output, by kind."""


def captions_per_image(job: JobConfig) -> int:
    """Return the captions of each image, several samples of a slot included."""
    return sum(slot.samples for slot in job.captions)


def card_rates(job: JobConfig, tokens: Tokens) -> list[Rate]:
    """Return the roofline of every GPU on which the model fits; none if the model's dimensions are not known."""
    dims, slots = planned_dims(job.model), captions_per_image(job)
    if dims is None:
        return []
    return [
        Rate(
            name=name.value,
            images_per_s=roofline(dims, card, slots, tokens.prompt, tokens.caption),
            gpus=1,
            source="roofline: at best, not measured",
        )
        for name, card in GPUS.items()
        if fits(dims, card, tokens.prompt + tokens.caption)
    ]


def estimate(
    job: JobConfig, work: Workload, tokens: Tokens, rates: Sequence[Rate], prices: Mapping[str, float], max_pixels: int
) -> Estimate:
    """Estimate the cost of the work.

    Args:
        job: the job.
        work: the remaining work.
        tokens: averages of a request.
        rates: possible speeds.
        prices: of an hour of a GPU, or of `machine`, by name.
        max_pixels: width x height of a decoded image, at most.
    """
    requests = captions_per_image(job) if work.requests_per_image is None else work.requests_per_image
    captions = round(work.images * requests)
    # A rate counts images with all of their captions.
    whole_images = captions / captions_per_image(job)
    row_bytes = tokens.row_bytes or ROW_BYTES + TEXT_SHARE * family_of(job.model).chars_per_token * tokens.caption
    in_flight = _images_in_flight(job, max_pixels) * job.engine.replicas.max
    return Estimate(
        captions=captions,
        prompt_tokens=captions * tokens.prompt,
        caption_tokens=captions * tokens.caption,
        times=[_time(rate, whole_images, prices.get(rate.name)) for rate in rates],
        output_bytes=captions * row_bytes,
        staging_bytes=captions * row_bytes,
        object_store_bytes=float(in_flight * max_pixels * PIXEL_BYTES),
        disk_bytes_per_reader=work.largest_shard_bytes if work.remote_source else 0,
        requests=_requests(job, work),
    )


def _time(rate: Rate, images: float, price: float | None) -> Time:
    seconds = images / rate.images_per_s + (rate.start_s if images else 0.0)
    hours = seconds / 3600
    return Time(
        name=rate.name,
        images_per_s=rate.images_per_s,
        source=rate.source,
        hours=hours,
        gpu_hours=hours * rate.gpus,
        cost=None if price is None else hours * price,
    )


def _images_in_flight(job: JobConfig, max_pixels: int) -> int:
    """Of one replica: the batches in flight, one more in its queue, and one that is being read."""
    num_seqs = job.engine.max_num_seqs or (None if job.engine.kind is EngineKind.ECHO else 256)
    plan = plan_batches(job.engine, num_seqs, max_pixels, captions_per_image(job))
    return (plan.in_flight + 2) * plan.grown_images


def _requests(job: JobConfig, work: Workload) -> dict[str, int]:
    """Requests of a run without faults; docs/design.md lists those of a commit."""
    fragments = work.shards + work.images // job.engine.batch_images  # each shard's last one is not full
    source = work.shards if work.remote_source else 0
    list_calls = 3 + 2 * math.ceil(work.shards_planned / LIST_KEYS)
    return {
        # A reader checks whether another run has committed its shard; a commit reads the fragments.
        "GET": source + work.shards + fragments,
        "HEAD": source + work.shards,
        "PUT": fragments + work.shards,
        "LIST": list_calls + work.shards,
        "DELETE": work.shards,
    }
