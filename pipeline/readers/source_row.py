"""What every kind of shard gives: its number of rows at once, then the rows in the shard's own order."""

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from schemas.status import Reason

Check = Callable[[], None]
"""Raises ShardUnreadable if the shard has changed since it was opened."""

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One image of a shard, or the reason why it cannot be had. `data` is None exactly when `reason` is set."""

    row: int
    key: str
    """The sample's own name, valid UTF-8; may repeat."""
    data: bytes | None
    carried: dict[str, JSON] = field(default_factory=dict)
    """The fields that `source.carry` asks for and the row has."""
    reason: Reason | None = None
    """MISSING_IMAGE, TOO_MANY_BYTES or SHARD_DAMAGED."""
    message: str | None = None


def no_check() -> None:
    """Check nothing: what is read cannot change, or is only looked at."""


NAMED = 3
"""Names that a `LeftOut` keeps."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files with the name of an image that are no row of their own, for one reason."""

    why: str
    num_files: int
    names: tuple[str, ...]
    """Of the first `NAMED`."""

    def __str__(self) -> str:
        more = ", ..." if self.num_files > len(self.names) else ""
        files = "file with the name of an image is" if self.num_files == 1 else "files with the names of images are"
        return f"{self.num_files:,} {files} not read ({self.why}): {', '.join(self.names)}{more}"


def add_up(parts: Iterable[tuple[str, Iterable[LeftOut]]]) -> list[LeftOut]:
    """Add up what several shards leave out, by reason; each name is told with its shard's path."""
    sums: dict[str, LeftOut] = {}
    for shard, left_out in parts:
        for one in left_out:
            so_far = sums.get(one.why, LeftOut(one.why, 0, ()))
            names = (*so_far.names, *(f"{shard}: {name}" for name in one.names))[:NAMED]
            sums[one.why] = LeftOut(one.why, so_far.num_files + one.num_files, names)
    return list(sums.values())


class ShardReader(Protocol):
    """A shard whose extent is known."""

    @property
    def check(self) -> Check:
        """Raises ShardUnreadable if the file was overwritten in place: what was read may be of both contents.

        To be called after rows were taken and before anything is made of them; `rows` does so at its end.
        """
        ...

    @property
    def num_images(self) -> int: ...

    @property
    def layout(self) -> str:
        """What was found in it, for people: columns, or files."""
        ...

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The images that are no rows of their own."""
        ...

    def rows(self, wanted: Container[int] | None) -> Iterator[SourceRow]:
        """Yield rows in ascending order of `row`: all, or those in `wanted`, whose neighbours are not read.

        Raises:
            ShardUnreadable: an I/O error of the local disk, or the shard changed while it was read.
        """
        ...
