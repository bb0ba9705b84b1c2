"""The format of a folder of image files: the sorted names are divided into parts, and each part is a shard.

Each file with the name of an image is a row, and its key is its name up to the last dot: `figure1.jpg` and
`figure1.1.jpg` are two images, not an image and its mask. A text belongs to the images with the longest key that its
name begins with: `figure1.1.txt` to `figure1.1.jpg`, `figure1.tags.txt` to `figure1.jpg`.

A shard is all images whose keys are between a first and a last key, and its URL contains both: `photos#first,last`.
So a worker finds the images by listing, and nothing else has to be passed on or stored. The etag is a digest of the
names, sizes and times of the images: if an image is added, changed or removed, the shard has changed. Texts are not in
the etag, since they may be written at any time. A text without an image is not a row.
"""

import hashlib
import os
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter
from typing import Any
from urllib.parse import quote, unquote

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.readers.file_listing import FileStat, Info, NotRegular, files_below, stat_file
from pipeline.readers.format import Format
from pipeline.readers.grouping import HIDDEN, Grouping, Member, Sample, left_out_of, named_as_image, split_name
from pipeline.readers.sample_reader import MemberUnreadable, SampleShard, field_names
from pipeline.readers.source_row import LeftOut, ShardReader, no_check
from pipeline.readers.splits import in_split
from pipeline.readers.transport import changed, is_local, open_regular, with_tries
from schemas.shard import Shard

AHEAD_FILES = 64
"""Images fetched from a store together: a GET takes 30 to 50 ms, so sequential GETs would dominate the time.
At 1 MB per image these are 64 MB per reader."""
AHEAD_BYTES = 8 << 20
"""A larger image is fetched alone."""


@dataclass(frozen=True, slots=True)
class _Image:
    """A file of a folder that is a row."""

    key: str
    name: str
    """Below the folder, as the store has it."""
    info: Info = field(compare=False)


def folder_shards(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    folder: str,
    files: dict[str, Info],
    source: SourceConfig,
) -> tuple[list[Shard], list[LeftOut]]:
    """Return the shards of the images of a folder, with paths relative to it, and the images that are in none.

    Raises:
        ConfigError: an image is a dangling link.
    """
    stats, left_out = _stat_images(fs, folder, _images(folder, files, source))
    by_key = [list(same) for _, same in groupby(stats, key=attrgetter("key"))]
    url = folder if is_local(fs) else str(fs.unstrip_protocol(folder))
    shards: list[Shard] = []
    for number, start in enumerate(range(0, len(by_key), source.images_per_shard)):
        part = list(chain.from_iterable(by_key[start : start + source.images_per_shard]))
        key_range = f"{_quoted(part[0].key)},{_quoted(part[-1].key)}"
        size = sum(stats[image].size for image in part)
        etag = _digest({image: stats[image] for image in part})
        shards.append(Shard(f"images-{number:05d}", f"{url}#{key_range}", size, etag))
    names = (path[len(folder) + 1 :] for path in files)
    hidden = sorted(_label(name) for name in names if named_as_image(name) and split_name(name) is None)
    return shards, [*left_out, *left_out_of(HIDDEN, hidden)]


def folder_shard(shard: Shard, source: SourceConfig, max_bytes: int) -> SampleShard:
    """List the folder of a shard again and return its rows.

    Raises:
        ShardUnreadable: an image of the shard has changed, or the folder cannot be listed.
    """
    url, _, key_range = shard.url.rpartition("#")
    first, last = (unquote(key, errors="surrogateescape") for key in key_range.split(","))
    fs, folder = url_to_fs(url)
    below = _shared_folder(first, last)
    files = with_tries(shard, lambda: files_below(fs, f"{folder}/{below}" if below else folder))
    images = _images(folder, files, source)
    try:
        stats, _ = _stat_images(fs, folder, [image for image in images if first <= image.key <= last])
    except ConfigError as err:
        raise changed(shard, str(err)) from err
    etag = _digest(stats)
    if etag != shard.etag:
        raise changed(shard, f"etag {etag} instead of {shard.etag}")
    # With the keys of all shards, since the longest key wins and may be in the next shard.
    fields = field_names(source)
    texts = _texts(folder, files, {image.key for image in images}, source) if any(fields) else {}
    members = _Members(fs, folder)
    samples: list[Sample] = []
    for image, stat in stats.items():
        # In the order in which they are read, so that several are fetched from a store together.
        beside = {extension: members.text(name, files) for extension, name in texts.get(image.key, {}).items()}
        texts_of = {extension: member for extension, member in beside.items() if member is not None}
        samples.append(Sample(_label(image.key), members.add(image.name, stat.size, stat.etag), texts_of))
    return SampleShard(shard, _FolderFiles(shard, fs, members), Grouping(samples, 0, 0), fields, max_bytes, None)


class _Members:
    """The files of a shard, by the numbers in `Member.offset`."""

    def __init__(self, fs: Any, folder: str) -> None:  # noqa: ANN401 - fsspec has no types
        self._fs = fs
        self._folder = folder
        self._texts: dict[str, Member | None] = {}
        self.members: list[Member] = []
        self.paths: list[str] = []
        self.etags: list[str | None] = []
        """As listed; None for a text, which may change at any time."""

    def add(self, name: str, size: int, etag: str | None) -> Member:
        self.members.append(Member(_label(name), len(self.members), size))
        self.paths.append(f"{self._folder}/{name}")
        self.etags.append(etag)
        return self.members[-1]

    def text(self, name: str, files: Mapping[str, Info]) -> Member | None:
        """A text of one or more images; None if it is gone, a dangling link or not a regular file."""
        if name not in self._texts:
            path = f"{self._folder}/{name}"
            try:
                self._texts[name] = self.add(name, stat_file(self._fs, path, files[path]).size, None)
            except ConfigError:
                self._texts[name] = None
        return self._texts[name]


class _FolderFiles:
    def __init__(self, shard: Shard, fs: Any, members: _Members) -> None:  # noqa: ANN401
        self._shard = shard
        self._fs = fs
        self._files = members
        self._ahead: dict[int, bytes] = {}
        self._left_out: frozenset[int] = frozenset()
        # Each image is compared with the listing when it is read.
        self.check = no_check

    def leave_out(self, members: Iterable[Member]) -> None:
        """See `Files.leave_out`."""
        self._left_out = frozenset(member.offset for member in members)

    def read(self, member: Member) -> bytes:
        if not is_local(self._fs):
            data, etag = self._remote(member), None
        else:
            data, etag = self._local(member)
        planned = self._files.etags[member.offset]
        if planned is None and len(data) != member.size:
            raise MemberUnreadable("changed while it was read")
        if len(data) != member.size:
            raise changed(self._shard, f"{member.name} has {len(data)} bytes instead of {member.size}")
        if etag is not None and planned not in (None, etag):
            raise changed(self._shard, f"{member.name} has {etag} instead of {planned}")
        return data

    def _local(self, member: Member) -> tuple[bytes, str]:
        try:
            with open_regular(self._files.paths[member.offset]) as file:
                # One byte more than listed, to detect a file that has grown; a device would have no end.
                data = file.read(member.size + 1)
                return data, f"mtime-{os.fstat(file.fileno()).st_mtime_ns}"
        except FileNotFoundError as err:
            if self._files.etags[member.offset] is None:
                raise MemberUnreadable("is gone") from err
            raise changed(self._shard, f"{member.name} is gone") from err
        except PermissionError as err:
            raise MemberUnreadable(f"cannot be read ({err.strerror})") from err

    def _remote(self, member: Member) -> bytes:
        if member.offset not in self._ahead:
            members, paths = self._files.members, self._files.paths
            ahead = range(member.offset + 1, min(member.offset + AHEAD_FILES, len(members)))
            wanted_ahead = (number for number in ahead if number not in self._left_out)
            numbers = [member.offset, *(number for number in wanted_ahead if members[number].size <= AHEAD_BYTES)]
            wanted = {paths[number]: number for number in numbers}
            fetched: dict[str, bytes] = with_tries(self._shard, lambda: self._fs.cat(list(wanted)))
            self._ahead = {wanted[path]: data for path, data in fetched.items()}
        return self._ahead[member.offset]


def _images(folder: str, files: Mapping[str, Info], source: SourceConfig) -> list[_Image]:
    """The files that are rows, by key, then by name."""
    images: list[_Image] = []
    for path, info in files.items():
        name = path[len(folder) + 1 :]
        if named_as_image(name) and split_name(name) is not None and in_split(name, source.split, by_folder=True):
            images.append(_Image(name.rpartition(".")[0], name, info))
    return sorted(images, key=attrgetter("key", "name"))


def _stat_images(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    folder: str,
    images: Sequence[_Image],
) -> tuple[dict[_Image, FileStat], list[LeftOut]]:
    """Sizes and etags of the images, and those that are not regular files.

    Raises:
        ConfigError: a dangling link.
    """
    stats: dict[_Image, FileStat] = {}
    not_files: dict[str, list[str]] = {}
    for image in images:
        try:
            stats[image] = stat_file(fs, f"{folder}/{image.name}", image.info)
        except NotRegular as err:
            not_files.setdefault(f"{err.kind}, not a regular file", []).append(_label(image.name))
    return stats, [left_out for why, names in not_files.items() for left_out in left_out_of(why, names)]


def _texts(folder: str, files: Iterable[str], keys: Collection[str], source: SourceConfig) -> dict[str, dict[str, str]]:
    """The names of the texts beside each image, by its key and their extension."""
    texts: dict[str, dict[str, str]] = {}
    for path in sorted(files):
        name = path[len(folder) + 1 :]
        if named_as_image(name) or split_name(name) is None or not in_split(name, source.split, by_folder=True):
            continue
        parent, slash, base = name.rpartition("/")
        parts = base.split(".")
        for number in range(len(parts) - 1, 0, -1):
            key = f"{parent}{slash}{'.'.join(parts[:number])}"
            if key in keys:
                extension = _label(".".join(parts[number:]).lower())
                texts.setdefault(key, {}).setdefault(extension, name)
                break
    return texts


def _digest(stats: Mapping[_Image, FileStat]) -> str:
    digest = hashlib.sha256()
    for image, stat in stats.items():
        digest.update(f"{image.name}\0{stat.size}\0{stat.etag}\n".encode(errors="surrogateescape"))
    return f"images-{digest.hexdigest()[:32]}"


def _shared_folder(first: str, last: str) -> str:
    """The deepest folder that contains all keys from first to last."""
    shared: list[str] = []
    for part, other in zip(first.split("/")[:-1], last.split("/")[:-1], strict=False):
        if part != other:
            break
        shared.append(part)
    return "/".join(shared)


def _quoted(key: str) -> str:
    return quote(key, errors="surrogateescape")


def _label(name: str) -> str:
    """Valid UTF-8, as a `Member` has it."""
    return name.encode(errors="surrogateescape").decode("utf-8", "backslashreplace")


@contextmanager
def open_folder(shard: Shard, source: SourceConfig, max_bytes: int) -> Generator[ShardReader]:
    """See `Format.open`."""
    yield folder_shard(shard, source, max_bytes)


@contextmanager
def open_folder_head(
    shard: Shard,
    source: SourceConfig,
    max_bytes: int,
    num_images: int,  # noqa: ARG001 - see `OpenHead`
    fields: Sequence[str],  # noqa: ARG001 - see `OpenHead`
) -> Generator[ShardReader]:
    """List the folder; each image is a file, and only wanted ones are fetched."""
    yield folder_shard(shard, source, max_bytes)


FOLDER = Format(name="parts of folders of images", suffixes=(), open=open_folder, open_head=open_folder_head)
