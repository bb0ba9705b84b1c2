"""The followers of a job: rows in whose place an equal or similar image is captioned, by an index of its source.

The order in which leaders are chosen is that in which rows came to be selected: generation after generation of the
plan, in each by shard and row. Of each cluster the first selected row is the leader. What a later generation adds
changes nothing about earlier rows: a new shard, or a row that a changed condition selects, follows a leader that
exists.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import JobConfig
from pipeline.config.source_config import DuplicatesConfig
from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.index.clusters import ROW_BITS, Clusters, open_clusters, with_names
from pipeline.ledger.duplicates_record import IndexIdentity
from pipeline.ledger.index_files import Index, open_index, read_rows, refuse_other_settings, refuse_other_source
from pipeline.ledger.layout import index_path
from pipeline.prompts.row_fields import metadata_names, values_at
from pipeline.selection import RowFacts, Selection
from schemas.index import Hash
from schemas.shard import Shard

READERS = 16
"""Files of the index read at the same time: each is some 100 kB, and a GET takes 30 to 50 ms on S3."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A generation of a plan: the shards that it adds, and the selection from then on."""

    shards: Sequence[Shard]
    selection: Selection


@dataclass(frozen=True, slots=True)
class IndexedSource:
    """An index that was checked against a job."""

    config: DuplicatesConfig
    index: Index
    prompt_fields: tuple[str, ...]
    """Paths of the fields that prompts use."""

    @property
    def identity(self) -> IndexIdentity:
        """As the output's record names it."""
        first = self.index.plan.generations[0]
        return IndexIdentity(url=self.config.index, fingerprint=self.index.fingerprint, plan=first.sha256)


@dataclass(slots=True)
class Followers:
    """The followers of all phases; gone when the context of `find_followers` ends."""

    clusters: Clusters
    shards: Sequence[str]
    """Of all phases, in order."""
    num_images: Mapping[str, int]
    """By shard, without those that the index could not read."""

    def of_phase(self, number: int) -> Iterator[pa.Table]:
        """Yield the followers that were selected in a phase (`schemas.duplicates.FOLLOWER`), by shard and row."""
        first, end = (((number + add) * len(self.shards)) << ROW_BITS for add in (0, 1))
        return (with_names(batch, self.shards) for batch in self.clusters.followers(first, end))


def open_indexed_source(job: JobConfig, shards: Sequence[Shard]) -> IndexedSource:
    """Open the index of `source.duplicates` and check that it describes these shards, with what the job needs of it.

    Raises:
        ConfigError: it is no index, or lacks a hash or a field.
        OutputMismatch: it was made with other settings, or of other shards.
    """
    config = job.source.duplicates
    assert config is not None
    index = open_index(config.index)
    refuse_other_settings(index, job.source.model_dump(mode="json"), job.images.model_dump(mode="json"))
    refuse_other_source(index, shards)
    needed = Hash.SHA256 if config.max_distance is None else Hash.PHASH
    if needed not in index.hashes:
        raise ConfigError(
            f"source.duplicates.by: {config.by}: the index {config.index} has no {needed}; it has "
            f"{', '.join(sorted(index.hashes)) or 'no hashes'}. Make one with it: joyfleet index SOURCE OUTPUT "
            f"--hash {needed}"
        )
    prompt_fields = tuple(job.field_policies)
    for user, names in (
        ("prompts use", metadata_names(prompt_fields)),
        ("source.where tests", job.source.where.field_names() if job.source.where else ()),
    ):
        lacking = [name for name in names if not index.has_fields([name])]
        if lacking:
            raise ConfigError(
                f"source.duplicates.index: {config.index} does not keep the field {lacking[0]!r}, which {user}: equal "
                "images may differ in it. Make an index that keeps it: `joyfleet index JOB_FILE OUTPUT`"
            )
    return IndexedSource(config, index, prompt_fields)


@contextmanager
def find_followers(source: IndexedSource, phases: Sequence[Phase]) -> Iterator[Followers]:
    """Find the followers of all phases; what a phase has does not depend on the phases behind it.

    Raises:
        ConfigError: images of one cluster differ in a field that prompts use.
        StoreError: a file of the index is damaged.
    """
    items = _Items(source, phases)
    with open_clusters(items.batches(), source.config.max_distance) as clusters:
        shards = [shard.path for shard in items.shards]
        _refuse_other_prompts(source, clusters, shards)
        yield Followers(clusters, shards, items.num_images)


@dataclass(slots=True)
class _Items:
    """The selected rows of the index, numbered in the order in which leaders are chosen."""

    source: IndexedSource
    phases: Sequence[Phase]
    shards: list[Shard] = field(init=False)
    num_images: dict[str, int] = field(init=False, default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.shards = [shard for phase in self.phases for shard in phase.shards]

    def batches(self) -> Iterator[pa.RecordBatch]:
        planned = [number for number, phase in enumerate(self.phases) for _ in phase.shards]
        for number, table in self._tables():
            yield from self._numbered(table, number, planned[number])

    def _tables(self) -> Iterator[tuple[int, pa.Table]]:
        """The rows of each shard that the index could read, in order."""
        index, unread = self.source.index, self.source.index.quarantined()
        numbered = ((number, shard) for number, shard in enumerate(self.shards) if shard.path not in unread)

        def read(entry: tuple[int, Shard]) -> tuple[int, pa.Table]:
            return entry[0], self._checked(read_rows(index.store, index.fingerprint, entry[1]), entry[1])

        with ThreadPoolExecutor(READERS) as pool:
            # In groups: `map` would read far ahead of DuckDB.
            while group := list(itertools.islice(numbered, READERS)):
                for number, table in pool.map(read, group):
                    self.num_images[self.shards[number].path] = table.num_rows
                    yield number, table

    def _checked(self, table: pa.Table, shard: Shard) -> pa.Table:
        if not np.array_equal(table["row"].to_numpy(), np.arange(table.num_rows)):
            raise StoreError(
                f"{self.source.config.index}/{index_path(shard.path)}: its {table.num_rows} rows are not 0 to "
                f"{table.num_rows - 1}; make a new index of the source"
            )
        return table

    def _numbered(self, table: pa.Table, number: int, planned: int) -> Iterator[pa.RecordBatch]:
        """The rows that are selected in some phase; a row whose image cannot be read is asked, so it has no cluster."""
        phase = self._first_phases(table, self.shards[number].path, planned)
        chosen = (phase >= 0) & np.array([reason is None for reason in table["reason"].to_pylist()], np.bool_)
        kept = table.filter(pa.array(chosen))
        items = ((phase[chosen] * len(self.shards) + number) << ROW_BITS) + kept["row"].to_numpy()
        columns = [pa.array(items, pa.int64()), kept["sha256"], kept["phash"], self._worded(kept)]
        yield from pa.table(columns, names=["item", "sha256", "phash", "text"]).to_batches()

    def _first_phases(self, table: pa.Table, shard: str, planned: int) -> npt.NDArray[np.int64]:
        """By row, the first phase that selects it; -1: none does."""
        changes = [
            number
            for number in range(planned, len(self.phases))
            if number == planned or self.phases[number].selection != self.phases[number - 1].selection
        ]
        if self.phases[planned].selection.selects_all:
            return np.full(table.num_rows, planned, np.int64)
        columns = ("metadata", "bytes", "width", "height", "format")
        rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
        return np.array([self._first_phase(shard, row, facts, changes) for row, facts in enumerate(rows)], np.int64)

    def _first_phase(self, shard: str, row: int, values: tuple[Any, ...], changes: Sequence[int]) -> int:
        metadata, num_bytes, width, height, image_format = values
        facts = RowFacts(
            fields=json.loads(metadata), num_bytes=num_bytes, width=width, height=height, format=image_format
        )
        return next((number for number in changes if self.phases[number].selection.selects(shard, row, facts)), -1)

    def _worded(self, table: pa.Table) -> pa.Array:
        """By row, the values that its prompts use, as JSON; null if they use none."""
        paths = self.source.prompt_fields
        if not paths:
            return pa.nulls(table.num_rows, pa.string())
        return pa.array([_values(metadata, paths) for metadata in table["metadata"].to_pylist()], pa.string())


def _values(metadata: str, paths: Iterable[str]) -> str:
    fields: Any = json.loads(metadata)
    return json.dumps([list(values_at(fields, path.split("."))) for path in paths], ensure_ascii=False)


SHOWN = 80
"""Characters of a value in a message."""


def _refuse_other_prompts(source: IndexedSource, clusters: Clusters, shards: Sequence[str]) -> None:
    difference = clusters.first_difference() if source.prompt_fields else None
    if difference is None:
        return
    own, lead = (json.loads(text) for text in difference.texts)
    path, *pair = next(
        (path, *pair) for path, *pair in zip(source.prompt_fields, own, lead, strict=True) if pair[0] != pair[1]
    )
    follower, leader = (
        f"{shards[(item >> ROW_BITS) % len(shards)]} row {item % (1 << ROW_BITS)} has {json.dumps(value)[:SHOWN]}"
        for item, value in zip(difference.items, pair, strict=True)
    )
    raise ConfigError(
        f"source.duplicates: prompts use {{source.{path}}}, in which images that are equal by {source.config.by} "
        f"differ: {follower}, and its leader {leader} ({difference.number:,} such rows). Leave the field out of the "
        "prompts, or source.duplicates out of the job, and give it a new output"
    )


def refuse_other_index(url: str, recorded: IndexIdentity, source: IndexedSource) -> None:
    """Refuse another index than the one from which an output has its followers.

    Raises:
        OutputMismatch: it is another one.
    """
    current = source.identity
    if (recorded.fingerprint, recorded.plan) != (current.fingerprint, current.plan):
        raise OutputMismatch(
            f"{url}: its duplicates come from the index {recorded.url} with fingerprint {recorded.fingerprint} and "
            f"plan {recorded.plan[:16]}, and {current.url} has {current.fingerprint} and {current.plan[:16]}. Give the "
            "index of the first run, extended by `joyfleet index --extend`, or caption into a new output"
        )
