"""A zip shard: its rows are known from its directory, which stands at its end, so a cut zip has none.

Each file has a checksum of its own: a damaged one costs its row, and no other.
"""

import errno
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from pipeline.errors import ShardUnreadable
from pipeline.readers.grouping import group
from pipeline.readers.member import Member
from pipeline.readers.sample_reader import MemberUnreadable, SampleShard, refuse_nothing
from pipeline.readers.source_row import Check, no_check
from schemas.shard import Shard

ENCRYPTED = 0x1
"""Bit of a file's flags."""

DAMAGES = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, LookupError)
"""What `zipfile` and its decompressors raise on damaged bytes."""


class _ZipFiles:
    def __init__(self, archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo], check: Check) -> None:
        self.check = check
        self._archive = archive
        self._infos = infos

    def read(self, member: Member) -> bytes:
        info = self._infos[member.offset]
        if info.flag_bits & ENCRYPTED:
            raise MemberUnreadable("encrypted; pack the zip again without a password")
        try:
            # Never more than the directory announces, which `max_bytes` has seen, whatever the data unpack to.
            with self._archive.open(info) as file:
                data = file.read(info.file_size)
        except DAMAGES as err:
            raise MemberUnreadable(f"damaged ({err})") from err
        except OSError as err:
            if err.errno not in (None, errno.EINVAL):
                raise
            # bz2's complaint about its data, and a seek to where no file can be.
            raise MemberUnreadable(f"damaged ({err})") from err
        except (NotImplementedError, RuntimeError) as err:
            raise MemberUnreadable(f"{err}; pack the zip again with deflate or without compression") from err
        if len(data) < info.file_size:
            raise MemberUnreadable(f"{len(data)} of {info.file_size} bytes: the zip is damaged")
        return data


def zip_shard(
    file: BinaryIO, shard: Shard, carry: Sequence[str], max_bytes: int, check: Check = no_check
) -> SampleShard:
    """Read the directory of a zip in a local file, which stays the caller's to close.

    Arguments are those of `tar_shard`.

    Raises:
        ShardUnreadable: not a zip, or one without any image or sample.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (*DAMAGES, NotImplementedError, OSError) as err:
        raise ShardUnreadable(f"{shard.url}: not a zip that can be read ({err}); restore the shard and retry") from err
    # Not `is_dir`, which takes the last character of a name: a damaged one may be empty.
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    members = [Member(_name(info), number, info.file_size) for number, info in enumerate(infos)]
    grouping = group(members)
    refuse_nothing(shard, members, grouping)
    return SampleShard(shard, _ZipFiles(archive, infos, check), grouping, carry, max_bytes, None)


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.encode("utf-8", "backslashreplace").decode()
