"""A folder of loose images, cut into shards that nobody packed: each a stretch of its sorted names.

A shard of a folder is all samples whose keys lie from its first to its last, and its URL says which:
`photos#first,last`. So a worker finds them by listing, and nothing else need be handed to it or
stored. Its etag is a digest of the names, sizes and times of its images: one that is added, changed
or gone is a changed shard, as with any other kind. Texts beside the images are in no etag, since they
may be written at any time; a text without an image is no row, since folders hold all kinds of notes.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.readers.grouping import group, is_image, split_name
from pipeline.readers.listing import Info, Look, files_below, look
from pipeline.readers.member import Member
from pipeline.readers.samples import MemberUnreadable, SampleShard
from pipeline.readers.splits import in_split
from pipeline.readers.transport import changed, is_local, with_tries
from schemas.shard import Shard

AHEAD_FILES = 64
"""Images of a store asked for together: a GET takes 30 to 50 ms, and one after the other they would take all the time.
At 1 MB an image that is 64 MB a reader."""
AHEAD_BYTES = 8 << 20
"""A larger one comes alone."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a folder that belongs to a sample."""

    key: str
    name: str
    """Below the folder, as the store has it."""
    is_image: bool
    info: Info = field(compare=False)


def folder_shards(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    folder: str,
    files: dict[str, Info],
    source: SourceConfig,
) -> Iterator[Shard]:
    """Yield the shards of the images among the files of a folder, with paths relative to it.

    Raises:
        ConfigError: an image that is a link to nothing.
    """
    images = [file for file in _sorted(folder, files, source) if file.is_image]
    by_key = [list(same) for _, same in groupby(images, key=attrgetter("key"))]
    url = folder if is_local(fs) else str(fs.unstrip_protocol(folder))
    for number, start in enumerate(range(0, len(by_key), source.images_per_shard)):
        mine = list(chain.from_iterable(by_key[start : start + source.images_per_shard]))
        looks = {file: look(fs, f"{folder}/{file.name}", file.info) for file in mine}
        stretch = f"{_quoted(mine[0].key)},{_quoted(mine[-1].key)}"
        size = sum(seen.size for seen in looks.values())
        yield Shard(f"images-{number:05d}", f"{url}#{stretch}", size, _digest(looks))


def folder_shard(shard: Shard, source: SourceConfig, max_bytes: int) -> SampleShard:
    """List the folder of a shard again and find its rows.

    Raises:
        ShardUnreadable: an image of the shard is not what it was, or the folder cannot be listed.
    """
    url, _, stretch = shard.url.rpartition("#")
    first, last = (unquote(key, errors="surrogateescape") for key in stretch.split(","))
    fs, folder = url_to_fs(url)
    below = _shared_folder(first, last)
    files = with_tries(shard, lambda: files_below(fs, f"{folder}/{below}" if below else folder))
    found = [file for file in _sorted(folder, files, source) if first <= file.key <= last]
    try:
        looks = {file: look(fs, f"{folder}/{file.name}", file.info) for file in found}
    except ConfigError as err:
        raise changed(shard, str(err)) from err
    etag = _digest({file: seen for file, seen in looks.items() if file.is_image})
    if etag != shard.etag:
        raise changed(shard, f"etag {etag} instead of {shard.etag}")
    members = [Member(_label(file.name), number, seen.size) for number, (file, seen) in enumerate(looks.items())]
    grouping = group(members)
    samples = [sample for sample in grouping.samples if sample.image is not None]
    wrapped = _FolderFiles(shard, fs, [f"{folder}/{file.name}" for file in looks], members)
    return SampleShard(shard, wrapped, replace(grouping, samples=samples), source.carry, max_bytes, None)


class _FolderFiles:
    def __init__(self, shard: Shard, fs: Any, paths: Sequence[str], members: Sequence[Member]) -> None:  # noqa: ANN401
        self._shard = shard
        self._fs = fs
        self._paths = paths
        self._members = members
        self._ahead: dict[int, bytes] = {}

    def read(self, member: Member) -> bytes:
        data = self._local(member) if is_local(self._fs) else self._remote(member)
        if len(data) != member.size:
            raise changed(self._shard, f"{member.name} has {len(data)} bytes instead of {member.size}")
        return data

    def _local(self, member: Member) -> bytes:
        try:
            return Path(self._paths[member.offset]).read_bytes()
        except FileNotFoundError as err:
            raise changed(self._shard, f"{member.name} is gone") from err
        except PermissionError as err:
            raise MemberUnreadable(f"cannot be read ({err.strerror})") from err

    def _remote(self, member: Member) -> bytes:
        if member.offset not in self._ahead:
            ahead = range(member.offset + 1, min(member.offset + AHEAD_FILES, len(self._members)))
            numbers = [member.offset, *(one for one in ahead if self._members[one].size <= AHEAD_BYTES)]
            paths = {self._paths[number]: number for number in numbers}
            fetched: dict[str, bytes] = with_tries(self._shard, lambda: self._fs.cat(list(paths)))
            self._ahead = {paths[path]: data for path, data in fetched.items()}
        return self._ahead[member.offset]


def _sorted(folder: str, files: Mapping[str, Info], source: SourceConfig) -> list[_File]:
    """The files that belong to samples, by key, then by name."""
    found: list[_File] = []
    for path, info in files.items():
        name = path[len(folder) + 1 :]
        split = split_name(name)
        if split is not None and in_split(name, source.split, by_folder=True):
            found.append(_File(split[0], name, is_image(split[1]), info))
    return sorted(found, key=attrgetter("key", "name"))


def _digest(looks: Mapping[_File, Look]) -> str:
    digest = hashlib.sha256()
    for file, seen in looks.items():
        digest.update(f"{file.name}\0{seen.size}\0{seen.etag}\n".encode(errors="surrogateescape"))
    return f"images-{digest.hexdigest()[:32]}"


def _shared_folder(first: str, last: str) -> str:
    """The deepest folder below which all keys from first to last lie."""
    shared: list[str] = []
    for mine, other in zip(first.split("/")[:-1], last.split("/")[:-1], strict=False):
        if mine != other:
            break
        shared.append(mine)
    return "/".join(shared)


def _quoted(key: str) -> str:
    return quote(key, errors="surrogateescape")


def _label(name: str) -> str:
    """Valid UTF-8, as a `Member` has it."""
    return name.encode(errors="surrogateescape").decode("utf-8", "backslashreplace")
