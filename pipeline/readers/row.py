"""What every kind of shard gives: its number of rows at once, then the rows in the shard's own order."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from schemas.status import Reason

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


class OpenShard(Protocol):
    """A shard whose extent is known."""

    @property
    def num_rows(self) -> int: ...

    @property
    def layout(self) -> str:
        """What was found in it, for people: columns, or files."""
        ...

    def rows(self, wanted: Container[int] | None) -> Iterator[SourceRow]:
        """Yield rows in ascending order of `row`: all, or those in `wanted`, whose neighbours are not read.

        Raises:
            ShardUnreadable: an I/O error of the local disk.
        """
        ...
