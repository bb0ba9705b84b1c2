"""The first rows of a shard without fetching the shard: for a sample, a thousandth of its bytes is enough.

A tar in a store is walked header by header with small ranged reads until enough rows are known, a Parquet
shard gives its footer and the row groups asked for. A local shard lies here already, a gzipped tar has no
ranges and is fetched whole.
"""

import logging
from collections.abc import Generator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.formats import open_shard
from pipeline.readers.grouping import Grouping, Sample, group
from pipeline.readers.member import Member
from pipeline.readers.parquet import ParquetShard
from pipeline.readers.sample_reader import SampleShard
from pipeline.readers.source_row import ShardReader
from pipeline.readers.tar import TarFiles
from pipeline.readers.tar_walk import TarDamage, walk
from pipeline.readers.transport import is_local, store_errors
from schemas.shard import Shard

log = logging.getLogger(__name__)

WINDOW_BYTES = 16 << 10
"""Read at once of a tar: the headers and texts between two images, seldom more, so one request an image."""
PARQUET_WINDOW_BYTES = 4 << 20


@contextmanager
def open_head(
    shard: Shard, source: SourceConfig, max_bytes: int, num_rows: int, carry: tuple[str, ...] = ()
) -> Generator[ShardReader]:
    """Find at least the first `num_rows` rows of a shard, or all where it has fewer.

    They are those of `open_shard` where the files of each sample stand together; else a row may lack texts
    or be another one: whoever must know compares the image's hash.

    Args:
        shard: as listed.
        source: which columns and fields to read.
        max_bytes: an image larger than this is not read, its row says TOO_MANY_BYTES.
        num_rows: how many are needed.
        carry: of a tar in a store, the fields to read; each text is a request more, so none by default.

    Raises:
        ShardUnreadable: names the shard, what was found and what to do.
    """
    fs, path = url_to_fs(shard.url)
    if is_local(fs) or not path.lower().endswith((".tar", ".parquet")):
        with open_shard(shard, source, max_bytes) as opened:
            yield opened
        return
    try:
        with closing(_open_ranged(fs, path)) as file:
            yield _head(file, shard, source, carry, max_bytes, num_rows)
    except store_errors() as err:
        raise ShardUnreadable(f"{shard.url}: cannot be read ({type(err).__name__}: {err}); check the store") from err


def _open_ranged(fs: Any, path: str) -> BinaryIO:  # noqa: ANN401 - fsspec has no types
    window = WINDOW_BYTES if path.lower().endswith(".tar") else PARQUET_WINDOW_BYTES
    return cast("BinaryIO", fs.open(path, "rb", block_size=window, cache_type="readahead"))


def _head(
    file: BinaryIO, shard: Shard, source: SourceConfig, carry: tuple[str, ...], max_bytes: int, num_rows: int
) -> ShardReader:
    size = file.seek(0, 2)
    file.seek(0)
    if size != shard.size:
        raise ShardUnreadable(f"{shard.url}: changed since the plan, {size} bytes instead of {shard.size}")
    if shard.path.lower().endswith(".parquet"):
        return ParquetShard(file, shard, source, max_bytes)
    samples = _samples(file, shard, num_rows)
    return SampleShard(shard, TarFiles(file), Grouping(samples, 0, 0), carry, max_bytes, None)


def _samples(file: BinaryIO, shard: Shard, num_rows: int) -> list[Sample]:
    """The first rows; one sample more is walked, since the files of the last may not all be seen yet."""
    walking, members = walk(file, shard.size), list[Member]()
    samples: list[Sample] = []
    while len(samples) <= num_rows:
        before = len(members)
        try:
            for member in islice(walking, num_rows + 1):
                members.append(member)
        except TarDamage as damage:
            log.warning("%s: damaged at byte %d: %s", shard.url, damage.offset, damage.what)
        samples = group(members).samples
        if len(members) == before:
            return samples
    return samples[:num_rows]
