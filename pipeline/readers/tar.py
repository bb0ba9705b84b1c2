"""The tar format, plain or gzipped: the rows follow from the headers, and damage costs what is behind it.

A damaged tar gives the rows of the whole files before the damage, and one last row for the rest.
"""

import io
import logging
import os
import zlib
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any, BinaryIO

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.format import Format, ShardCount
from pipeline.readers.grouping import Grouping, Member, Sample, group
from pipeline.readers.gunzip import MAGIC, gunzip
from pipeline.readers.sample_reader import LostFiles, MemberUnreadable, SampleShard, field_names, refuse_nothing
from pipeline.readers.source_row import Check, FieldNames, ShardReader, no_check
from pipeline.readers.tar_walk import BLOCK, TarDamage, read_at, walk
from pipeline.readers.transport import check_unchanged, local_file, ranged_file
from schemas.shard import Shard

log = logging.getLogger(__name__)

HEAD_WINDOW_BYTES = 16 << 10
"""Read at once for the first rows: the headers and texts between two images, so about one request per image."""
COUNT_BYTES = 4 << 20
"""Read to count the images: some 40 images of 100 kB. The rest of a longer tar is assumed to be like its head."""


class TarFiles:
    """The files of a tar: a local file, or one of fsspec's that reads ranges."""

    def __init__(self, file: BinaryIO, check: Check = no_check) -> None:
        self._file = file
        self.check = check

    def leave_out(self, members: Iterable[Member]) -> None:
        """See `Files.leave_out`: each file is read alone."""

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
    fields: FieldNames,
    max_bytes: int,
    check: Check = no_check,
    cut: str | None = None,
) -> SampleShard:
    """Read all headers of a tar in a local file, which the caller closes.

    Args:
        file: the tar.
        shard: for its names.
        fields: metadata fields to read.
        max_bytes: an image larger than this is not read.
        check: as in `ShardReader`.
        cut: why `file` may not be the whole tar, if so.

    Raises:
        ShardUnreadable: not a tar, or one without any image or sample.
    """
    links: list[str] = []
    members, damage = _members(file, links)
    if cut is not None:
        damage = TarDamage(damage.offset, f"{damage.what} ({cut})") if damage else TarDamage(_size(file), cut)
    grouping = group(members, links)
    if damage is not None and not grouping.samples:
        raise ShardUnreadable(
            f"{shard.url}: nothing to read before byte {damage.offset}: {damage.what}; restore the shard and retry"
        )
    refuse_nothing(shard, members, grouping)
    lost = None
    if damage is not None:
        where = f"byte {damage.offset}"
        lost = LostFiles(f"<damaged at {where}>", f"{shard.url}: everything from {where} on is lost: {damage.what}")
    return SampleShard(shard, TarFiles(file, check), grouping, fields, max_bytes, lost)


def _members(file: BinaryIO, links: list[str]) -> tuple[list[Member], TarDamage | None]:
    members: list[Member] = []
    try:
        for member in walk(file, _size(file), links):
            members.append(member)  # noqa: PERF402 - those before the damage must survive it
    except TarDamage as damage:
        return members, damage
    return members, None


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


@contextmanager
def open_tar(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    """See `Format.open`. Whether it is gzipped is read off its first bytes, not its suffix."""
    with ExitStack() as stack:
        file = stack.enter_context(local_file(shard))
        check = partial(check_unchanged, file, shard)
        tar, cut = file, None
        if file.read(len(MAGIC)) == MAGIC:
            file.seek(0)
            tar, cut = gunzip(file, shard.size)
            stack.enter_context(closing(tar))
        yield tar_shard(tar, shard, field_names(source), max_bytes, check, cut)


@contextmanager
def open_tar_head(
    shard: Shard,
    source: SourceConfig,
    max_bytes: int,
    num_images: int,
    fields: Sequence[str],
) -> Generator[ShardReader]:
    """Walk a tar in a store header by header, with small ranged reads, until enough samples are known."""
    with ranged_file(shard, HEAD_WINDOW_BYTES) as file:
        samples = _first_samples(file, shard, num_images)
        names = FieldNames(fields, source.tested_fields)
        yield SampleShard(shard, TarFiles(file), Grouping(samples, 0, 0), names, max_bytes, None)


def _first_samples(file: BinaryIO, shard: Shard, num_images: int) -> list[Sample]:
    """The first rows. One sample more is walked, since not all files of the last one may be known yet."""
    remaining, members = walk(file, shard.size), list[Member]()
    samples: list[Sample] = []
    while len(samples) <= num_images:
        before = len(members)
        try:
            for member in islice(remaining, num_images + 1):
                members.append(member)
        except TarDamage as damage:
            log.warning("%s: damaged at byte %d: %s", shard.url, damage.offset, damage.what)
        samples = group(members).samples
        if len(members) == before:
            return samples
    return samples[:num_images]


def count_tar(shard: Shard, source: SourceConfig) -> ShardCount:  # noqa: ARG001 - see `Format.count`
    """Count the samples in the first `COUNT_BYTES`, and extrapolate where these are not the whole tar."""
    fs: Any
    fs, path = url_to_fs(shard.url)
    head = bytes(fs.cat_file(path, start=0, end=COUNT_BYTES))
    tar, share = head, len(head) / shard.size
    if head.startswith(MAGIC):
        try:
            tar = zlib.decompressobj(wbits=31).decompress(head)
        except zlib.error as err:
            raise ShardUnreadable(f"{shard.url}: gzip: {err}") from err
    links: list[str] = []
    members, damage = _members(io.BytesIO(tar), links)
    grouping = group(members, links)
    num_samples, left_out = len(grouping.samples), grouping.left_out
    if damage is None:
        return ShardCount(num_samples, exact=share >= 1, left_out=left_out)
    if not num_samples:
        raise ShardUnreadable(f"{shard.url}: {damage.what}")
    if share >= 1:  # the run will make one row of everything behind the damage
        return ShardCount(num_samples + 1, exact=True, left_out=left_out)
    # The file that the end of the head cuts belongs to the part that was not read.
    covered = share * (members[-1].offset + -(-members[-1].size // BLOCK) * BLOCK) / len(tar)
    return ShardCount(num_samples / covered, exact=False, left_out=left_out)


TAR = Format(name="tar", suffixes=(".tar",), open=open_tar, open_head=open_tar_head, count=count_tar)

# Gzip has no ranges, so the first rows need the whole shard.
TAR_GZ = Format(name="tar.gz", suffixes=(".tar.gz", ".tgz"), open=open_tar, count=count_tar)
