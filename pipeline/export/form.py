"""An export form as a record: the options it honours, what it reads and which files it writes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.config.export_config import ExportConfig
from pipeline.export.choose_captions import Chosen
from pipeline.readers import ShardReader
from pipeline.storage import Store
from schemas.shard import Shard

FILTERS = frozenset({"slots", "outputs", "modes", "without_flags", "min_words", "max_words", "duplicates"})
"""Fields of `ExportConfig` that every form honours: the captions are chosen before a form gets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCaptions:
    """The input of a form: a shard with its chosen captions."""

    shard: Shard
    chosen: Sequence[Chosen]
    slots: tuple[str, ...]
    """Taken, in order."""
    config: ExportConfig
    schemas: Mapping[str, str]
    """JSON Schemas of slots, as JSON text."""
    opened: ShardReader | None
    """The source's shard, if its images or its columns are read."""
    joined: bool
    """Whether the columns of the source are joined."""
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
    """An export with all committed shards exported."""

    store: Store
    config: ExportConfig
    recipe: str
    columns: str
    """Of its tables."""
    num_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form. It pickles, since several processes export shards: its functions are at the top of a module."""

    name: str
    """What --to takes."""
    summary: str
    """A line for the help."""
    files: Callable[[ShardCaptions], Iterator[File]]
    """The files of a shard, in the order in which they are written."""
    needs_images: bool
    """Whether the source's images are read; the option `images` overrides it where it is honoured."""
    honours: frozenset[str] = frozenset()
    """Fields of `ExportConfig` besides `FILTERS`. Any other option is refused."""
    honours_with_template: frozenset[str] = frozenset()
    """Fields that are honoured only together with `template`."""
    one_text: bool = False
    """It has one text per image, so several slots need a template."""
    beside_source: bool = False
    """It writes into the source's own folder: no FOLDER is given, and existing files there are allowed."""
    pushable: bool = False
    """Its folder can be pushed to the Hugging Face hub."""
    check: Callable[[Sequence[Shard], Store, ExportConfig], None] | None = None
    """Raises PipelineError for a source, a destination or options that the form cannot use."""
    finish: Callable[[Finished], None] | None = None
    """Writes files that describe all shards; replaces what it wrote before."""

    def reads_images(self, config: ExportConfig) -> bool:
        """Return whether an export with these options reads the source's images."""
        return self.needs_images if config.images is None else config.images
