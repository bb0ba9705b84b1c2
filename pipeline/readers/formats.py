"""The kind of a shard is read off its name and then held to: a tar named `.parquet` is unreadable, not guessed."""

from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.folder import folder_shard
from pipeline.readers.gunzip import MAGIC, gunzip
from pipeline.readers.parquet import ParquetShard
from pipeline.readers.source_listing import SHARD_SUFFIXES
from pipeline.readers.source_row import ShardReader
from pipeline.readers.tar import tar_shard
from pipeline.readers.transport import check_unchanged, open_local
from pipeline.readers.zip import zip_shard
from schemas.shard import Shard


@contextmanager
def open_shard(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    """Bring a shard to the local disk and find its rows; a temporary copy is gone when the context ends.

    Args:
        shard: as listed; one that changed since is refused.
        source: which columns and fields to read.
        max_bytes: an image larger than this is not read, its row says TOO_MANY_BYTES.

    Raises:
        ShardUnreadable: names the shard, what was found and what to do.
    """
    with ExitStack() as files:
        try:
            opened = _open(shard, source, max_bytes, files)
        except OSError as err:
            raise ShardUnreadable(f"{shard.url}: {err}; check the local disk and retry") from err
        yield opened


def _open(shard: Shard, source: SourceConfig, max_bytes: int, files: ExitStack) -> ShardReader:
    if not shard.path.lower().endswith(SHARD_SUFFIXES):
        return folder_shard(shard, source, max_bytes)
    file = files.enter_context(closing(open_local(shard)))
    check = partial(check_unchanged, file, shard)
    if not shard.size:
        raise ShardUnreadable(f"{shard.url}: 0 bytes; restore the shard and retry")
    if shard.path.lower().endswith(".parquet"):
        return ParquetShard(file, shard, source, max_bytes, check)
    if shard.path.lower().endswith(".zip"):
        return zip_shard(file, shard, source.metadata_fields, max_bytes, check)
    if file.read(len(MAGIC)) != MAGIC:
        return tar_shard(file, shard, source.metadata_fields, max_bytes, check)
    file.seek(0)
    unpacked, cut = gunzip(file, shard.size)
    files.enter_context(closing(unpacked))
    return tar_shard(unpacked, shard, source.metadata_fields, max_bytes, check, cut)
