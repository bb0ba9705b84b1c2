"""A zip shard: its rows are known from its directory, which stands at its end, so a cut zip has none.

Each file has a checksum of its own: a damaged one costs its row, and no other.
"""

import zipfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from pipeline.errors import ShardUnreadable
from pipeline.readers.grouping import group
from pipeline.readers.member import Member
from pipeline.readers.samples import MemberUnreadable, SampleShard, refuse_nothing
from schemas.shard import Shard

ENCRYPTED = 0x1
"""Bit of a file's flags."""


class _ZipFiles:
    def __init__(self, archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo]) -> None:
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
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as err:
            raise MemberUnreadable(f"damaged ({err})") from err
        except (NotImplementedError, RuntimeError) as err:
            raise MemberUnreadable(f"{err}; pack the zip again with deflate or without compression") from err
        if len(data) < info.file_size:
            raise MemberUnreadable(f"{len(data)} of {info.file_size} bytes: the zip is damaged")
        return data


def zip_shard(file: BinaryIO, shard: Shard, carry: Sequence[str], max_bytes: int) -> SampleShard:
    """Read the directory of a zip in a local file, which stays the caller's to close.

    Arguments are those of `tar_shard`.

    Raises:
        ShardUnreadable: not a zip, or one without any image or sample.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as err:
        raise ShardUnreadable(f"{shard.url}: not a zip that can be read ({err}); restore the shard and retry") from err
    infos = [info for info in archive.infolist() if not info.is_dir()]
    members = [Member(_name(info), number, info.file_size) for number, info in enumerate(infos)]
    grouping = group(members)
    refuse_nothing(shard, members, grouping)
    return SampleShard(shard, _ZipFiles(archive, infos), grouping, carry, max_bytes, None)


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.encode("utf-8", "backslashreplace").decode()
