"""A few images of a source, the same ones whenever they are drawn: a pure function of seed and shards.

Shards are taken in the order of their hashes with the seed, at most `SHARDS` for the first `SHARDS` x k
images, and of each the rows with the smallest hashes among its first `HEAD_ROWS`: so it is known before
anything is read how much that can be, whatever the size of the source.
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
"""Shards that a sample is spread over, and read at once."""
HEAD_ROWS = 500
"""Of a tar in a store, about as many requests: some seconds."""


@dataclass(frozen=True, slots=True)
class SampledShard:
    """The rows drawn of one shard, in its order."""

    shard: Shard
    num_images: int
    """Images known of the shard, at least those up to the last drawn."""
    rows: tuple[SourceRow, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn, and which shards could not be read for it."""

    shards: tuple[SampledShard, ...]
    unreadable: tuple[str, ...]


def draw_sample(spec: ReadSpec, shards: Sequence[Shard], seed: int, num_images: int) -> Sample:
    """Draw images spread over the shards; fewer than asked only where the source has no more.

    A shard that cannot be read is named in the result and makes room for the next one.
    """
    ordered = sorted(shards, key=lambda shard: _hash(seed, shard.path))
    drawn: list[SampledShard] = []
    unreadable: list[str] = []
    left = num_images
    with ThreadPoolExecutor(SHARDS) as pool:
        while left > 0 and ordered:
            now, ordered = ordered[:SHARDS], ordered[SHARDS:]
            # What the last of them may lack is drawn from the next.
            quotas = [left // len(now) + (index < left % len(now)) for index in range(len(now))]
            jobs = [pool.submit(_draw, spec, shard, seed, quota) for shard, quota in zip(now, quotas, strict=True)]
            for job in jobs:
                try:
                    drawn.append(job.result())
                except ShardUnreadable as err:
                    log.warning("%s", err)
                    unreadable.append(str(err))
            left = num_images - sum(len(one.rows) for one in drawn)
    return Sample(tuple(one for one in drawn if one.rows), tuple(unreadable))


def _draw(spec: ReadSpec, shard: Shard, seed: int, quota: int) -> SampledShard:
    if not quota:
        return SampledShard(shard, 0, ())
    with open_head(shard, spec.source, spec.images.max_bytes, HEAD_ROWS) as opened:
        numbers = range(min(opened.num_images, HEAD_ROWS))
        wanted = set(sorted(numbers, key=lambda row: _hash(seed, shard.path, row))[:quota])
        return SampledShard(shard, opened.num_images, tuple(opened.rows(wanted)))


def _hash(*parts: str | int) -> bytes:
    text = "\x1f".join(str(part) for part in ("sample", *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
