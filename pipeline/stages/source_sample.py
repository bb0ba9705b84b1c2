"""Samples a few images of a source: a pure function of seed and shards, so that each call gets the same images.

Shards are taken in the order of their hashes with the seed, `SHARDS` at a time. Of each, the rows with the smallest
hashes among its first `HEAD_ROWS` are taken. So the amount that is read is bounded, whatever the size of the source.
"""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.errors import ShardUnreadable
from pipeline.readers import SourceRow, open_head
from pipeline.stages.read_batches import ReadSpec
from schemas.shard import Shard

log = logging.getLogger(__name__)

SHARDS = 8
"""Shards that are sampled together, and read concurrently."""
HEAD_ROWS = 500
"""A tar in a store takes about one request for each row: some seconds."""


@dataclass(frozen=True, slots=True)
class SampledShard:
    """The sampled rows of one shard, in its order."""

    shard: Shard
    num_images: int
    """Images that the reader knows, at least those up to the last sampled one."""
    rows: tuple[SourceRow, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The sampled rows, and the shards that could not be read."""

    shards: tuple[SampledShard, ...]
    unreadable: tuple[str, ...]


def draw_sample(spec: ReadSpec, shards: Sequence[Shard], seed: int, num_images: int) -> Sample:
    """Sample images spread over the shards; fewer than `num_images` only if the source has no more.

    A shard that cannot be read is named in the result, and the next one takes its place.
    """
    ordered = sorted(shards, key=lambda shard: _hash(seed, shard.path))
    drawn: list[SampledShard] = []
    unreadable: list[str] = []
    left = num_images
    with ThreadPoolExecutor(SHARDS) as pool:
        while left > 0 and ordered:
            group, ordered = ordered[:SHARDS], ordered[SHARDS:]
            # If these have too few images, the next group supplies the rest.
            quotas = [left // len(group) + (index < left % len(group)) for index in range(len(group))]
            jobs = [pool.submit(_draw, spec, shard, seed, quota) for shard, quota in zip(group, quotas, strict=True)]
            for job in jobs:
                try:
                    drawn.append(job.result())
                except ShardUnreadable as err:
                    log.warning("%s", err)
                    unreadable.append(str(err))
            left = num_images - sum(len(sampled.rows) for sampled in drawn)
    return Sample(tuple(sampled for sampled in drawn if sampled.rows), tuple(unreadable))


def _draw(spec: ReadSpec, shard: Shard, seed: int, quota: int) -> SampledShard:
    if not quota:
        return SampledShard(shard, 0, ())
    with open_head(shard, spec.source, spec.images.max_bytes, HEAD_ROWS, spec.source.optional_fields) as opened:
        numbers = range(min(opened.num_images, HEAD_ROWS))
        wanted = set(sorted(numbers, key=lambda row: _hash(seed, shard.path, row))[:quota])
        return SampledShard(shard, opened.num_images, tuple(opened.rows(wanted)))


def _hash(*parts: str | int) -> bytes:
    text = "\x1f".join(str(part) for part in ("sample", *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
