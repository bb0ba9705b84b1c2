"""A tar shard: its rows are known from its headers, each image is read when its row is asked for.

A damaged tar gives the rows of the whole files before the damage, and one last row that stands for
all that is lost, so that a shard's loss is counted and can be found by its reason.
"""

import json
import logging
import os
from collections.abc import Container, Iterator, Mapping
from typing import Any, BinaryIO

from pipeline.errors import ShardUnreadable
from pipeline.readers.carry import EVERYTHING, fields_to_json, to_json
from pipeline.readers.row import JSON, SourceRow
from pipeline.readers.tar_samples import IMAGE_EXTENSIONS, Grouping, Sample, group
from pipeline.readers.tar_walk import Member, TarDamage, walk
from schemas.shard import Shard
from schemas.status import Reason

log = logging.getLogger(__name__)

# A text beside an image is a caption, tags or metadata; anything larger would make every caption row heavy.
MAX_TEXT_BYTES = 1 << 20

# fmt: off
BINARY_EXTENSIONS = frozenset((
    "npy", "npz", "pt", "pth", "pickle", "pkl", "bin", "safetensors", "mp3", "mp4", "wav", "flac", "ogg", "webm", "zip",
    "gz",
))
# fmt: on


class TarShard:
    """An `OpenShard` over a tar in a local file."""

    def __init__(
        self, file: BinaryIO, shard: Shard, carry: tuple[str, ...], max_bytes: int, cut: str | None = None
    ) -> None:
        """Read all headers.

        Args:
            file: stays the caller's to close.
            shard: for its names.
            carry: as in `SourceConfig`.
            max_bytes: an image larger than this is not read.
            cut: why `file` may not be the whole tar, if so.

        Raises:
            ShardUnreadable: not a tar, or one without any image or sample.
        """
        self._file = file
        self._url = shard.url
        self._carry = carry
        self._max_bytes = max_bytes
        members, self._damage = _members(file, cut)
        grouping = group(members)
        self._samples = grouping.samples
        self._refuse_nothing(members)
        self.num_rows = len(self._samples) + (self._damage is not None)
        _log_grouping(shard, self.num_rows, grouping)

    def _refuse_nothing(self, members: list[Member]) -> None:
        if self._samples:
            return
        if self._damage is not None:
            raise ShardUnreadable(
                f"{self._url}: nothing to read before byte {self._damage.offset}: {self._damage.what}; "
                "restore the shard and retry"
            )
        if members:
            raise ShardUnreadable(
                f"{self._url}: {len(members)} files and no sample, the first is {members[0].name!r}; "
                f"an image's name ends in an extension such as {', '.join(sorted(IMAGE_EXTENSIONS)[:3])}"
            )

    def rows(self, wanted: Container[int] | None) -> Iterator[SourceRow]:
        """See `OpenShard.rows`."""
        try:
            for row, sample in enumerate(self._samples):
                if wanted is None or row in wanted:
                    yield self._row(row, sample)
        except OSError as err:
            raise ShardUnreadable(f"{self._url}: {err}; check the disk and retry") from err
        last = len(self._samples)
        if self._damage is not None and (wanted is None or last in wanted):
            where = f"byte {self._damage.offset}"
            message = f"{self._url}: all from {where} on is lost: {self._damage.what}"
            yield SourceRow(last, f"<damaged at {where}>", None, reason=Reason.SHARD_DAMAGED, message=message)

    def _row(self, row: int, sample: Sample) -> SourceRow:
        carried = self._carried(sample.texts) if self._carry else {}
        if sample.image is None:
            return SourceRow(row, sample.key, None, carried, Reason.MISSING_IMAGE, self._why_missing(sample))
        if sample.image.size > self._max_bytes:
            message = f"{sample.image.size} bytes, more than max_bytes={self._max_bytes}"
            return SourceRow(row, sample.key, None, carried, Reason.TOO_MANY_BYTES, message)
        return SourceRow(row, sample.key, self._read(sample.image), carried)

    def _read(self, member: Member) -> bytes:
        data = os.pread(self._file.fileno(), member.size, member.offset)
        if len(data) < member.size:
            raise OSError(f"{member.name}: {len(data)} of {member.size} bytes, cut while it was read")
        return data

    def _why_missing(self, sample: Sample) -> str:
        found = ", ".join(sorted(sample.texts))
        # img2dataset's own record of a download that failed.
        error = self._json(sample.texts).get("error_message")
        return f"no image among its files ({found})" + (f"; error_message: {error}" if error else "")

    def _json(self, texts: Mapping[str, Member]) -> dict[str, JSON]:
        """The sample's `.json`; what is wrong with it as `json_error`."""
        member = texts.get("json")
        if member is None:
            return {}
        if member.size > MAX_TEXT_BYTES:
            return {"json_error": f"{member.size} bytes, more than {MAX_TEXT_BYTES}"}
        try:
            value: Any = json.loads(self._read(member))
        except (ValueError, RecursionError) as err:
            return {"json_error": f"{type(err).__name__}: {err}"}
        if not isinstance(value, dict):
            return {"json_error": f"holds {type(value).__name__}, not an object"}
        return fields_to_json(value)

    def _carried(self, texts: Mapping[str, Member]) -> dict[str, JSON]:
        fields = self._json(texts)
        everything = EVERYTHING in self._carry
        carried = dict(fields) if everything else {name: fields[name] for name in self._carry if name in fields}
        if "json" in self._carry and fields:
            carried["json"] = fields
        elif "json_error" in fields:
            carried["json_error"] = fields["json_error"]
        for extension, member in texts.items():
            if extension != "json" and (extension in self._carry or everything):
                carried |= self._text(extension, member, asked=extension in self._carry)
        return carried

    def _text(self, extension: str, member: Member, *, asked: bool) -> dict[str, JSON]:
        if not asked and (member.size > MAX_TEXT_BYTES or extension.rpartition(".")[2] in BINARY_EXTENSIONS):
            return {}
        if member.size > MAX_TEXT_BYTES:
            return {f"{extension}_error": f"{member.size} bytes, more than {MAX_TEXT_BYTES}"}
        return {extension: to_json(self._read(member).decode("utf-8", "replace"))}


def _members(file: BinaryIO, cut: str | None) -> tuple[list[Member], TarDamage | None]:
    size = file.seek(0, os.SEEK_END)
    members: list[Member] = []
    try:
        for member in walk(file, size):
            members.append(member)  # noqa: PERF402 - those before the damage must survive it
    except TarDamage as damage:
        return members, damage if cut is None else TarDamage(damage.offset, f"{damage.what} ({cut})")
    return members, None if cut is None else TarDamage(size, cut)


def _log_grouping(shard: Shard, num_rows: int, grouping: Grouping) -> None:
    log.info(
        "shard=%s rows=%d side_images=%d ignored_files=%d",
        shard.path, num_rows, grouping.side_images, grouping.ignored,
    )  # fmt: skip
