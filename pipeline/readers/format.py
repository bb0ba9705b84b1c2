"""A shard format as a record: which files it claims, and how a shard of it is opened, sampled and counted."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pipeline.config import SourceConfig
from pipeline.readers.source_row import LeftOut, ShardReader
from schemas.shard import Shard


@dataclass(frozen=True, slots=True)
class ShardCount:
    """How many images a shard holds."""

    num_images: float
    exact: bool
    """False: extrapolated from a part of the shard."""
    left_out: tuple[LeftOut, ...] = ()


Open = Callable[[Shard, SourceConfig, int], AbstractContextManager[ShardReader]]
"""(shard, source, max_bytes). Whatever it holds is closed with the context; see `formats.open_shard`."""

OpenHead = Callable[[Shard, SourceConfig, int, int, Sequence[str]], AbstractContextManager[ShardReader]]
"""(shard, source, max_bytes, num_images, fields); see `formats.open_head`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A shard format: one module with this record, and one entry in `formats.FORMATS`."""

    name: str
    """For people: `joyfleet plan` prints `found: 12 tar`."""
    suffixes: tuple[str, ...]
    """Of its files, lower case, with the dot."""
    open: Open
    """Opens a shard to read all of it.

    Raises:
        ShardUnreadable: names the shard, what was found and what to do.
        OSError: of the local disk.
    """
    open_head: OpenHead | None = None
    """Opens a shard of which only the first images are read, without fetching the rest; None: `open` does it."""
    count: Callable[[Shard, SourceConfig], ShardCount] | None = None
    """Counts the images with a few requests; None: `open` does it, for up to `count_estimate.MAX_SHARDS`."""
    has_columns: bool = False
    """Whether its reader is a `ColumnReader`, so that an export can join the source's columns."""
