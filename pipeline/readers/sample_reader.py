"""Rows of shards that hold files: tar, zip and folder. A row is the files that share a name.

All rows are known before the first image is read, and each image is read when its row is requested.
What a damaged archive has lost is one last row, so that the loss is counted and has a reason.
"""

import json
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers.grouping import IMAGE_EXTENSIONS, Grouping, Member, Sample
from pipeline.readers.metadata_fields import EVERYTHING, fields_to_json, split_fields, to_json
from pipeline.readers.source_row import JSON, Check, FieldNames, LeftOut, Screen, SourceRow
from schemas.shard import Shard
from schemas.status import Reason

log = logging.getLogger(__name__)

# A text beside an image is a caption, tags or metadata; a larger one would bloat every caption row.
MAX_TEXT_BYTES = 1 << 20

# fmt: off
BINARY_EXTENSIONS = frozenset((
    "npy", "npz", "pt", "pth", "pickle", "pkl", "bin", "safetensors", "mp3", "mp4", "wav", "flac", "ogg", "webm", "zip",
    "gz",
))
# fmt: on


class MemberUnreadable(Exception):
    """One file of a shard cannot be read, the others can: it costs its own row."""


class Files(Protocol):
    """Reads the files of a shard."""

    @property
    def check(self) -> Check:
        """See `ShardReader.check`."""
        ...

    def leave_out(self, members: Iterable[Member]) -> None:
        """Learn which files will not be read, so that they are not fetched beside others."""
        ...

    def read(self, member: Member) -> bytes:
        """Return the whole file.

        Raises:
            MemberUnreadable: this file is damaged.
            ShardUnreadable: the shard is not what was planned.
            OSError: of the local disk.
        """
        ...


@dataclass(frozen=True, slots=True)
class LostFiles:
    """The unreadable rest of a shard, as one row."""

    key: str
    message: str


class SampleShard:
    """A `FileReader` over the samples of a shard."""

    def __init__(
        self,
        shard: Shard,
        files: Files,
        grouping: Grouping,
        fields: FieldNames,
        max_bytes: int,
        lost: LostFiles | None,
    ) -> None:
        """Rows are the samples of `grouping`, then `lost`. The caller closes what `files` reads from."""
        self._url = shard.url
        self._files = files
        self._fields = fields
        self._read_fields = (*fields.kept, *fields.tested)
        self._max_bytes = max_bytes
        self._samples = grouping.samples
        self._lost = lost
        self.check = files.check
        self.left_out: tuple[LeftOut, ...] = grouping.left_out
        self.num_images = len(self._samples) + (lost is not None)
        log.info(
            "shard=%s rows=%d side_images=%d ignored_files=%d",
            shard.path, self.num_images, grouping.side_images, grouping.ignored,
        )  # fmt: skip

    @property
    def layout(self) -> str:
        """See `ShardReader.layout`."""
        images = sum(sample.image is not None for sample in self._samples)
        beside = sorted({extension for sample in self._samples for extension in sample.texts})
        return f"{images:,} images" + (f", beside them .{', .'.join(beside[:SHOWN])}" if beside else "")

    def rows(self, wanted: Container[int] | None, screen: Screen | None = None) -> Iterator[SourceRow]:
        """See `ShardReader.rows`."""
        self._files.leave_out(self._unneeded(wanted, screen))
        try:
            for row, sample in enumerate(self._samples):
                if wanted is None or row in wanted:
                    yield self._row(row, sample, screen)
        except OSError as err:
            raise ShardUnreadable(f"{self._url}: {err}; check the disk and retry") from err
        self.check()
        last = len(self._samples)
        if self._lost is not None and (wanted is None or last in wanted):
            yield SourceRow(last, self._lost.key, None, reason=Reason.SHARD_DAMAGED, message=self._lost.message)

    def _unneeded(self, wanted: Container[int] | None, screen: Screen | None) -> list[Member]:
        """The images that will not be read, as far as that follows from no text."""
        return [
            sample.image
            for row, sample in enumerate(self._samples)
            if sample.image is not None
            and (
                (wanted is not None and row not in wanted)
                or (screen is not None and not self._read_fields and screen(row, {}, _num_bytes(sample.image)))
            )
        ]

    def files_of(self, row: int) -> Iterator[tuple[str, bytes]]:
        """Yield all files of a row that has an image, side files included, by extension as in `Sample`.

        Raises:
            ShardUnreadable: one of them cannot be read.
        """
        sample = self._samples[row]
        image = {} if sample.image is None else {sample.image.name.rpartition(".")[2].lower(): sample.image}
        for extension, member in (image | dict(sample.sides) | dict(sample.texts)).items():
            try:
                yield extension, self._files.read(member)
            except (MemberUnreadable, OSError) as err:
                raise ShardUnreadable(f"{self._url}: {member.name}: {err}; restore the shard and retry") from err

    def _row(self, row: int, sample: Sample, screen: Screen | None) -> SourceRow:
        fields = self._metadata(sample.texts) if self._read_fields else {}
        answer = screen(row, fields, _num_bytes(sample.image)) if screen else None
        data, reason, message = (None, *answer) if answer else self._image(sample)
        metadata, tested = split_fields(fields, self._fields)
        return SourceRow(row, sample.key, data, metadata, reason, message, tested)

    def _image(self, sample: Sample) -> tuple[bytes | None, Reason | None, str | None]:
        """The bytes of the image, or why there are none."""
        image = sample.image
        if image is None:
            return None, Reason.MISSING_IMAGE, self._why_missing(sample)
        if image.fault is not None:
            return None, Reason.MISSING_IMAGE, f"{self._url}: {image.name}: {image.fault}"
        if image.size > self._max_bytes:
            return None, Reason.TOO_MANY_BYTES, f"{image.size} bytes, more than max_bytes={self._max_bytes}"
        try:
            return self._files.read(image), None, None
        except MemberUnreadable as err:
            return None, Reason.SHARD_DAMAGED, f"{self._url}: {image.name}: {err}"

    def _why_missing(self, sample: Sample) -> str:
        others = ", ".join(sorted(sample.texts))
        # img2dataset stores there why a download failed.
        error = self._json(sample.texts).get("error_message")
        return f"no image among its files ({others})" + (f"; error_message: {error}" if error else "")

    def _json(self, texts: Mapping[str, Member]) -> dict[str, JSON]:
        """The sample's `.json`; if it cannot be parsed, the error as `json_error`."""
        member = texts.get("json")
        if member is None:
            return {}
        if member.size > MAX_TEXT_BYTES:
            return {"json_error": f"{member.size} bytes, more than {MAX_TEXT_BYTES}"}
        try:
            value: Any = json.loads(self._files.read(member))
            if not isinstance(value, dict):
                return {"json_error": f"holds {type(value).__name__}, not an object"}
            return fields_to_json(value)
        except (ValueError, RecursionError, MemberUnreadable) as err:
            return {"json_error": f"{type(err).__name__}: {err}"}

    def _metadata(self, texts: Mapping[str, Member]) -> dict[str, JSON]:
        fields = self._json(texts)
        wanted = self._read_fields
        everything = EVERYTHING in wanted
        metadata = dict(fields) if everything else {name: fields[name] for name in wanted if name in fields}
        if "json" in wanted and fields:
            metadata["json"] = fields
        elif "json_error" in fields:
            metadata["json_error"] = fields["json_error"]
        for extension, member in texts.items():
            if extension != "json" and (extension in wanted or everything):
                metadata |= self._text(extension, member, selected=extension in wanted)
        return metadata

    def _text(self, extension: str, member: Member, *, selected: bool) -> dict[str, JSON]:
        if not selected and (member.size > MAX_TEXT_BYTES or extension.rpartition(".")[2] in BINARY_EXTENSIONS):
            return {}
        if member.size > MAX_TEXT_BYTES:
            return {f"{extension}_error": f"{member.size} bytes, more than {MAX_TEXT_BYTES}"}
        try:
            return {extension: to_json(self._files.read(member).decode("utf-8", "replace"))}
        except MemberUnreadable as err:
            return {f"{extension}_error": str(err)}


SHOWN = 8
"""Extensions in a description."""


def _num_bytes(image: Member | None) -> int | None:
    return None if image is None or image.fault is not None else image.size


def field_names(source: SourceConfig) -> FieldNames:
    """Return the fields that the reader of a shard reads."""
    return FieldNames(source.metadata_fields, source.tested_fields)


def refuse_nothing(shard: Shard, members: Sequence[Member], grouping: Grouping) -> None:
    """Raise ShardUnreadable for a shard that has files but no sample."""
    if members and not grouping.samples:
        raise ShardUnreadable(
            f"{shard.url}: {len(members)} files and no sample, the first is {members[0].name!r}; "
            f"an image's name ends in an extension such as {', '.join(sorted(IMAGE_EXTENSIONS)[:3])}"
        )
