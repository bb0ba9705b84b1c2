"""Estimates how many images a source holds, from a few requests to a few shards.

At most `MAX_SHARDS` shards are sampled, evenly spread over the listing. How a shard is counted is up to its format.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.format import ShardCount
from pipeline.readers.formats import count_images
from pipeline.readers.source_row import LeftOut, add_up
from schemas.shard import Shard

MAX_SHARDS = 32
THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CountEstimate:
    """How many images a source holds."""

    images: int
    error: float
    """Standard error relative to `images`, from how the sampled shards differ; 0 if all shards were counted."""
    exact: bool
    sampled: int
    unreadable: dict[str, str]
    """Of the sampled shards, those that cannot be read, and why."""
    left_out: tuple[LeftOut, ...]
    """Images of the sampled shards, or of their heads, that are not rows."""


def estimate_counts(shards: Sequence[Shard], source: SourceConfig) -> CountEstimate:
    """Count the images of some of the shards, with at most a few requests for each, and extrapolate."""
    step = max(1, -(-len(shards) // MAX_SHARDS))
    sampled = [shard for shard in shards[step // 2 :: step] if shard.size]
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda shard: _count(shard, source), sampled))
    counts = [(shard, count) for shard, count in zip(sampled, results, strict=True) if isinstance(count, ShardCount)]
    unreadable = {shard.path: fault for shard, fault in zip(sampled, results, strict=True) if isinstance(fault, str)}
    images, error = _extrapolated(counts, shards, len(unreadable) / max(1, len(sampled)))
    return CountEstimate(
        images=round(images),
        error=error,
        exact=len(counts) == len(shards) and all(count.exact for _, count in counts),
        sampled=len(sampled),
        unreadable=unreadable,
        left_out=tuple(add_up((shard.path, count.left_out) for shard, count in counts)),
    )


def _count(shard: Shard, source: SourceConfig) -> ShardCount | str:
    try:
        return count_images(shard, source)
    except ShardUnreadable as err:
        return str(err)


def _extrapolated(
    counts: Sequence[tuple[Shard, ShardCount]], shards: Sequence[Shard], unreadable: float
) -> tuple[float, float]:
    """Images by the ratio of images to bytes, and its relative standard error, without the unreadable share."""
    counted_bytes, images = sum(shard.size for shard, _ in counts), sum(count.num_images for _, count in counts)
    if not images:
        return 0.0, 0.0
    ratio = images / counted_bytes
    total = sum(shard.size for shard in shards) * (1 - unreadable)
    num, not_sampled = len(counts), 1 - len(counts) / len(shards)
    spread = sum((count.num_images - ratio * shard.size) ** 2 for shard, count in counts)
    error = (not_sampled * num / (num - 1) * spread) ** 0.5 / images if num > 1 else not_sampled
    return ratio * total, error
