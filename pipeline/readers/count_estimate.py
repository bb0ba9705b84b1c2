"""How many images a source holds, from a bounded look: footers, listings, and the headers at the head of tars.

At most `MAX_SHARDS` shards are looked at, evenly spread over the listing, each with a footer or one range read. A tar
whose head is all of it, and a footer, are counted; the rest of a longer tar is taken to be like its head.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.folder import folder_shard
from pipeline.readers.grouping import group
from pipeline.readers.gunzip import MAGIC
from pipeline.readers.member import Member
from pipeline.readers.parquet import ParquetShard
from pipeline.readers.source_listing import SHARD_SUFFIXES
from pipeline.readers.source_row import LeftOut, add_up
from pipeline.readers.tar_walk import BLOCK, TarDamage, walk
from pipeline.readers.transport import store_errors
from pipeline.readers.zip import zip_shard
from schemas.shard import Shard

MAX_SHARDS = 32
HEAD_BYTES = 4 << 20
"""Of a tar: some 40 images of 100 kB."""
FOOTER_BLOCK_BYTES = 1 << 16
THREADS = 8


@dataclass(frozen=True, slots=True)
class ShardCount:
    """What one shard seems to hold."""

    shard: Shard
    rows: float
    exact: bool
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CountEstimate:
    """What a source seems to hold."""

    images: int
    error: float
    """Standard error relative to `images`, from how the sampled shards differ; 0 when all were counted."""
    exact: bool
    sampled: int
    unreadable: dict[str, str]
    """Of the sampled shards, those that cannot be read, and why."""
    left_out: tuple[LeftOut, ...]
    """Images of the sampled shards, or of their heads, that are no rows of their own."""


def estimate_counts(shards: Sequence[Shard], source: SourceConfig) -> CountEstimate:
    """Look at some of the shards; makes at most a few requests for each."""
    step = max(1, -(-len(shards) // MAX_SHARDS))
    sampled = [shard for shard in shards[step // 2 :: step] if shard.size]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda shard: _look(shard, source), sampled))
    looked = [one for one in found if isinstance(one, ShardCount)]
    unreadable = {shard.path: one for shard, one in zip(sampled, found, strict=True) if isinstance(one, str)}
    images, error = _extrapolated(looked, shards, len(unreadable) / max(1, len(sampled)))
    exact = len(looked) == len(shards) and all(one.exact for one in looked)
    return CountEstimate(
        images=round(images),
        error=error,
        exact=exact,
        sampled=len(sampled),
        unreadable=unreadable,
        left_out=tuple(add_up((one.shard.path, one.left_out) for one in looked)),
    )


def _extrapolated(looked: Sequence[ShardCount], shards: Sequence[Shard], unreadable: float) -> tuple[float, float]:
    """Images by the ratio of images to bytes, and its relative standard error, without the share that is unreadable."""
    seen, rows = sum(one.shard.size for one in looked), sum(one.rows for one in looked)
    if not rows:
        return 0.0, 0.0
    ratio = rows / seen
    total = sum(shard.size for shard in shards) * (1 - unreadable)
    num, left_out = len(looked), 1 - len(looked) / len(shards)
    spread = sum((one.rows - ratio * one.shard.size) ** 2 for one in looked)
    error = (left_out * num / (num - 1) * spread) ** 0.5 / rows if num > 1 else left_out
    return ratio * total, error


def _look(shard: Shard, source: SourceConfig) -> ShardCount | str:
    try:
        if not shard.path.lower().endswith(SHARD_SUFFIXES):
            return ShardCount(shard, folder_shard(shard, source, max_bytes=0).num_images, exact=True)
        fs, path = url_to_fs(shard.url)
        if shard.path.lower().endswith(".zip"):
            with fs.open(path, "rb", block_size=FOOTER_BLOCK_BYTES) as file:
                found = zip_shard(file, shard, (), max_bytes=0)
                return ShardCount(shard, found.num_images, exact=True, left_out=found.left_out)
        if shard.path.lower().endswith(".parquet"):
            with fs.open(path, "rb", block_size=FOOTER_BLOCK_BYTES) as file:
                return ShardCount(shard, ParquetShard(file, shard, source, max_bytes=0).num_images, exact=True)
        return _look_at_tar(shard, _head(fs, path))
    except ShardUnreadable as err:
        return str(err)
    except store_errors() as err:
        return f"{shard.url}: cannot be read ({type(err).__name__}: {err})"


def _head(fs: Any, path: str) -> bytes:  # noqa: ANN401 - fsspec has no types
    return bytes(fs.cat_file(path, start=0, end=HEAD_BYTES))


def _look_at_tar(shard: Shard, head: bytes) -> ShardCount | str:
    tar, share = head, len(head) / shard.size
    if head.startswith(MAGIC):
        try:
            tar = zlib.decompressobj(wbits=31).decompress(head)
        except zlib.error as err:
            return f"{shard.url}: gzip: {err}"
    links: list[str] = []
    members, damage = _members(tar, links)
    grouping = group(members, links)
    samples, left_out = grouping.samples, grouping.left_out
    if damage is None:
        return ShardCount(shard, len(samples), exact=share >= 1, left_out=left_out)
    if share >= 1 or not samples:  # what the run will make of it
        if not samples:
            return f"{shard.url}: {damage.what}"
        return ShardCount(shard, len(samples) + 1, exact=share >= 1, left_out=left_out)
    # The file that the cut went through belongs to the part that was not seen.
    covered = share * (members[-1].offset + _padded(members[-1].size)) / len(tar)
    return ShardCount(shard, len(samples) / covered, exact=False, left_out=left_out)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _members(tar: bytes, links: list[str]) -> tuple[list[Member], TarDamage | None]:
    members: list[Member] = []
    with tempfile.TemporaryFile() as file:
        file.write(tar)
        file.flush()
        try:
            for member in walk(file, file.seek(0, io.SEEK_END), links):
                members.append(member)  # noqa: PERF402 - those before the cut count
        except TarDamage as damage:
            return members, damage
    return members, None
