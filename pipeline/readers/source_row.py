"""The interface of a shard reader: the number of images at once, then the rows in the shard's own order."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from schemas.status import Reason

Check = Callable[[], None]
"""Raises ShardUnreadable if the shard has changed since it was opened."""

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


class FieldNames(NamedTuple):
    """Which metadata fields a reader reads."""

    kept: Sequence[str]
    """As `source.metadata_fields`: they go into the caption row."""
    tested: Sequence[str] = ()
    """They only decide about the row; a row may lack them."""


Screen = Callable[[int, Mapping[str, JSON], int | None], tuple[Reason, str] | None]
"""(row, metadata fields, bytes of the encoded image if they are known). Returns why the row needs no image, with a
message; then its image is not read. None: the image is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentImage:
    """What the rows of an output that is the source say about an image."""

    recipe: str
    """Fingerprint of the output."""
    sha256: str | None
    num_bytes: int | None
    format: str | None
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One image of a shard, or the reason why it cannot be read.

    `data` is None exactly when `reason` is set, or where only texts are read (`SourceConfig.without_images`, `texts`).
    """

    row: int
    key: str
    """Name of the sample, valid UTF-8; may repeat."""
    data: bytes | None
    metadata: dict[str, JSON] = field(default_factory=dict)
    """The fields of `source.metadata_fields` that the row has."""
    reason: Reason | None = None
    """MISSING_IMAGE, TOO_MANY_BYTES or SHARD_DAMAGED, or the answer of a `Screen`."""
    message: str | None = None
    tested: dict[str, JSON] = field(default_factory=dict)
    """The fields of `FieldNames.tested` that the row has and that are not in `metadata`."""
    parent: ParentImage | None = None
    """Of a row of an output that is the source."""


def no_check() -> None:
    """Check nothing: what is read cannot change, or is only a sample."""


NAMED = 3
"""Names that a `LeftOut` keeps."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files with the name of an image that are not rows, for one reason."""

    why: str
    num_files: int
    names: tuple[str, ...]
    """Of the first `NAMED`."""

    def __str__(self) -> str:
        more = ", ..." if self.num_files > len(self.names) else ""
        files = "file with the name of an image is" if self.num_files == 1 else "files with the names of images are"
        return f"{self.num_files:,} {files} not read ({self.why}): {', '.join(self.names)}{more}"


def add_up(parts: Iterable[tuple[str, Iterable[LeftOut]]]) -> list[LeftOut]:
    """Add up what several shards leave out, by reason; each name is prefixed with its shard's path."""
    sums: dict[str, LeftOut] = {}
    for shard, left_out in parts:
        for entry in left_out:
            total = sums.get(entry.why, LeftOut(entry.why, 0, ()))
            names = (*total.names, *(f"{shard}: {name}" for name in entry.names))[:NAMED]
            sums[entry.why] = LeftOut(entry.why, total.num_files + entry.num_files, names)
    return list(sums.values())


class ShardReader(Protocol):
    """An open shard. Every image is one row, numbered from 0."""

    @property
    def check(self) -> Check:
        """Raises ShardUnreadable if the file was overwritten in place: the rows may be of the old and the new content.

        Called after rows were read and before they are used; `rows` calls it at its end.
        """
        ...

    @property
    def num_images(self) -> int: ...

    @property
    def layout(self) -> str:
        """Its columns or files, in one line for people."""
        ...

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Images that are not rows."""
        ...

    def rows(self, wanted: Container[int] | None, screen: Screen | None = None) -> Iterator[SourceRow]:
        """Yield rows in ascending order of `row`: all, or those in `wanted`, and no others are read.

        Args:
            wanted: numbers of rows; None: all.
            screen: asked about each row before its image is read. A format may ignore it: then images are read in vain.

        Raises:
            ShardUnreadable: an I/O error of the local disk, or the shard changed while it was read.
        """
        ...


@runtime_checkable
class ColumnReader(ShardReader, Protocol):
    """A shard that is a table, so that an export can join its columns."""

    @property
    def image_column(self) -> str | None:
        """None for a table of texts."""
        ...

    def table(self, rows: Sequence[int]) -> pa.Table:
        """Return all columns of some rows, ascending.

        Raises:
            ShardUnreadable: they cannot be read.
        """
        ...


@runtime_checkable
class FileReader(ShardReader, Protocol):
    """A shard of files, so that an export can copy all files of a sample."""

    def files_of(self, row: int) -> Iterator[tuple[str, bytes]]:
        """Yield all files of a row that has an image, side files included, by extension.

        Raises:
            ShardUnreadable: one of them cannot be read.
        """
        ...
