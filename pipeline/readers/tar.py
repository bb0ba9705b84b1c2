"""A tar shard: its rows are known from its headers, and damage costs what lies behind it.

A damaged tar gives the rows of the whole files before the damage, and one last row for the rest.
"""

import os
from collections.abc import Sequence
from typing import BinaryIO

from pipeline.errors import ShardUnreadable
from pipeline.readers.grouping import group
from pipeline.readers.member import Member
from pipeline.readers.sample_reader import LostFiles, MemberUnreadable, SampleShard, refuse_nothing
from pipeline.readers.source_row import Check, no_check
from pipeline.readers.tar_walk import TarDamage, read_at, walk
from schemas.shard import Shard


class TarFiles:
    """The files of a tar: a local file, or one of fsspec's that reads ranges."""

    def __init__(self, file: BinaryIO, check: Check = no_check) -> None:
        self._file = file
        self.check = check

    def read(self, member: Member) -> bytes:
        """See `Files.read`."""
        if member.fault is not None:
            raise MemberUnreadable(member.fault)
        data = read_at(self._file, member.size, member.offset)
        if len(data) < member.size:
            raise OSError(f"{member.name}: {len(data)} of {member.size} bytes, cut while it was read")
        return data


def tar_shard(
    file: BinaryIO,
    shard: Shard,
    carry: Sequence[str],
    max_bytes: int,
    check: Check = no_check,
    cut: str | None = None,
) -> SampleShard:
    """Read all headers of a tar in a local file, which stays the caller's to close.

    Args:
        file: the tar.
        shard: for its names.
        carry: as in `SourceConfig`.
        max_bytes: an image larger than this is not read.
        check: as in `ShardReader`.
        cut: why `file` may not be the whole tar, if so.

    Raises:
        ShardUnreadable: not a tar, or one without any image or sample.
    """
    links: list[str] = []
    members, damage = _members(file, cut, links)
    grouping = group(members, links)
    if damage is not None and not grouping.samples:
        raise ShardUnreadable(
            f"{shard.url}: nothing to read before byte {damage.offset}: {damage.what}; restore the shard and retry"
        )
    refuse_nothing(shard, members, grouping)
    lost = None
    if damage is not None:
        where = f"byte {damage.offset}"
        lost = LostFiles(f"<damaged at {where}>", f"{shard.url}: all from {where} on is lost: {damage.what}")
    return SampleShard(shard, TarFiles(file, check), grouping, carry, max_bytes, lost)


def _members(file: BinaryIO, cut: str | None, links: list[str]) -> tuple[list[Member], TarDamage | None]:
    size = file.seek(0, os.SEEK_END)
    members: list[Member] = []
    try:
        for member in walk(file, size, links):
            members.append(member)  # noqa: PERF402 - those before the damage must survive it
    except TarDamage as damage:
        return members, damage if cut is None else TarDamage(damage.offset, f"{damage.what} ({cut})")
    return members, None if cut is None else TarDamage(size, cut)
