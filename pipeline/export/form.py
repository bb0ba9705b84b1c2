"""What a form of an export is: a record that says what it honours, what it reads and which files it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.config.export_config import ExportConfig
from pipeline.export.choose_captions import Chosen
from pipeline.readers import ShardReader
from pipeline.storage import Store
from schemas.shard import Shard

FILTERS = frozenset({"slots", "modes", "without_flags", "min_words", "max_words"})
"""Fields of `ExportConfig` that every form honours: which captions leave is decided before a form gets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCaptions:
    """What a form makes files of."""

    shard: Shard
    chosen: Sequence[Chosen]
    slots: tuple[str, ...]
    """Taken, in order."""
    config: ExportConfig
    opened: ShardReader | None
    """The source's shard, where its images or its columns are read."""
    joined: bool
    """Whether the columns of a Parquet source are asked for."""
    with_images: bool

    @property
    def source(self) -> ShardReader:
        """The source's shard, of a form that needs images."""
        assert self.opened is not None
        return self.opened


class File(NamedTuple):
    """A file of the destination. The same captions and options give the same bytes."""

    path: str
    content: bytes
    columns: str = ""
    """Of a table, as Arrow writes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An export of which all committed shards have left."""

    store: Store
    config: ExportConfig
    recipe: str
    columns: str
    """Of its tables."""
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form. It pickles, since shards are exported by several processes: its functions stand in a module."""

    name: str
    """What --to takes."""
    summary: str
    """A line for the help."""
    files: Callable[[ShardCaptions], Iterator[File]]
    """The files of a shard, in the order in which they are written."""
    needs_images: bool
    """Whether the source's images are read; `images` overrules it where it is honoured."""
    honours: frozenset[str] = frozenset()
    """Fields of `ExportConfig` beside `FILTERS`. Any other that is given is refused."""
    honours_with_template: frozenset[str] = frozenset()
    """Fields that have a meaning beside `template` alone."""
    one_text: bool = False
    """It holds one text an image, so several slots need a template."""
    beside_source: bool = False
    """It writes into the source's own folder, so that no FOLDER is given and the images there are no hindrance."""
    pushable: bool = False
    """What it makes is a data set of the Hugging Face hub."""
    check: Callable[[Sequence[Shard], Store], None] | None = None
    """Raises PipelineError for a source or a destination that do not suit the form."""
    finish: Callable[[Finished], None] | None = None
    """Writes what describes all shards; replaces what it wrote earlier."""

    def reads_images(self, config: ExportConfig) -> bool:
        """Tell whether an export with these options reads the source's images."""
        return self.needs_images if config.images is None else config.images
