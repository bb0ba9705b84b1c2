"""Builds shards for the tests of the readers, and reads them whole."""

import io
import tarfile
from collections.abc import Container, Iterable
from pathlib import Path

from pipeline.config import SourceConfig
from pipeline.readers import SourceRow, open_shard
from schemas.shard import Shard

MAX_BYTES = 1 << 20


def tar_of(
    files: Iterable[tuple[str, bytes]], tar_format: int = tarfile.USTAR_FORMAT, extra: Iterable[tarfile.TarInfo] = ()
) -> bytes:
    """A tar of the files, in their order, then the `extra` headers without data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


def shard_of(path: Path, data: bytes | None = None) -> Shard:
    if data is not None:
        path.write_bytes(data)
    stat = path.stat()
    return Shard(path.name, str(path), stat.st_size, f"mtime-{stat.st_mtime_ns}")


def read(
    shard: Shard, wanted: Container[int] | None = None, *, max_bytes: int = MAX_BYTES, **source
) -> list[SourceRow]:
    """All rows, after a check that their number was known at once and that they are numbered without a gap."""
    config = SourceConfig(urls=(shard.url,), **source)
    with open_shard(shard, config, max_bytes) as opened:
        num_images = opened.num_images
        rows = list(opened.rows(wanted))
    expected = [row for row in range(num_images) if wanted is None or row in wanted]
    assert [row.row for row in rows] == expected
    assert all((row.data is None) == (row.reason is not None) == (row.message is not None) for row in rows)
    return rows
