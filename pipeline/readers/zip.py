"""The zip format: the rows follow from the directory at the end of the file, so a cut zip is unreadable.

Each file has its own checksum: a damaged file costs one row.
"""

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.format import Format, ShardCount
from pipeline.readers.grouping import Member, group
from pipeline.readers.sample_reader import MemberUnreadable, SampleShard, field_names, refuse_nothing
from pipeline.readers.source_row import Check, FieldNames, ShardReader, no_check
from pipeline.readers.transport import check_unchanged, local_file, ranged_file
from schemas.shard import Shard

DIRECTORY_WINDOW_BYTES = 1 << 16

ENCRYPTED = 0x1
"""Bit of a file's flags."""

DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, LookupError)
"""What `zipfile` and its decompressors raise on damaged bytes."""


class _ZipFiles:
    def __init__(self, archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo], check: Check) -> None:
        self.check = check
        self._archive = archive
        self._infos = infos

    def leave_out(self, members: Iterable[Member]) -> None:
        """See `Files.leave_out`: each file is read alone."""

    def read(self, member: Member) -> bytes:
        info = self._infos[member.offset]
        if info.flag_bits & ENCRYPTED:
            raise MemberUnreadable("encrypted; pack the zip again without a password")
        try:
            # At most the size in the directory, which was compared with `max_bytes`, even if the data unpack to more.
            with self._archive.open(info) as file:
                data = file.read(info.file_size)
        except DAMAGES as err:
            raise MemberUnreadable(f"damaged ({err})") from err
        except OSError as err:
            if err.errno not in (None, errno.EINVAL):
                raise
            # bz2 reports damaged data so, and a seek to an impossible position ends so.
            raise MemberUnreadable(f"damaged ({err})") from err
        except (NotImplementedError, RuntimeError) as err:
            raise MemberUnreadable(f"{err}; pack the zip again with deflate or without compression") from err
        if len(data) < info.file_size:
            raise MemberUnreadable(f"{len(data)} of {info.file_size} bytes: the zip is damaged")
        return data


def zip_shard(file: BinaryIO, shard: Shard, fields: FieldNames, max_bytes: int, check: Check = no_check) -> SampleShard:
    """Read the directory of a zip in an open file, which the caller closes.

    Arguments are those of `tar_shard`.

    Raises:
        ShardUnreadable: not a zip, or one without any image or sample.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (*DAMAGES, NotImplementedError, OSError) as err:
        raise ShardUnreadable(f"{shard.url}: not a zip that can be read ({err}); restore the shard and retry") from err
    # Not `is_dir`, which reads the last character of a name: a damaged name may be empty.
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    members = [Member(_name(info), number, info.file_size) for number, info in enumerate(infos)]
    grouping = group(members)
    refuse_nothing(shard, members, grouping)
    return SampleShard(shard, _ZipFiles(archive, infos, check), grouping, fields, max_bytes, None)


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.encode("utf-8", "backslashreplace").decode()


@contextmanager
def open_zip(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    """See `Format.open`."""
    with local_file(shard) as file:
        yield zip_shard(file, shard, field_names(source), max_bytes, partial(check_unchanged, file, shard))


def count_zip(shard: Shard, source: SourceConfig) -> ShardCount:  # noqa: ARG001 - see `Format.count`
    """Read the directory alone."""
    with ranged_file(shard, DIRECTORY_WINDOW_BYTES) as file:
        reader = zip_shard(file, shard, FieldNames(()), max_bytes=0)
        return ShardCount(reader.num_images, exact=True, left_out=reader.left_out)


ZIP = Format(name="zip", suffixes=(".zip",), open=open_zip, count=count_zip)
