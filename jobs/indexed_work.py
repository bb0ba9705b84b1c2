"""What a job's selection leaves to caption, counted by its index: no shard is opened, whatever its size."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from jobs.selected_work import SelectedWork, num_taken_over
from pipeline.config import JobConfig
from pipeline.readers.count_estimate import CountEstimate
from pipeline.recipe import Recipe
from pipeline.selection import Duplicates
from pipeline.stages.existing_texts import existing_texts
from pipeline.stages.index_facts import IndexFacts
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.source_sample import SelectedShare
from pipeline.storage import open_store
from schemas.shard import Shard

READERS = 8
"""Files of the index that are read at the same time."""


@dataclass(frozen=True, slots=True)
class _ShardRows:
    """The rows of one shard."""

    num_rows: int
    selected: array[int]
    """Requests of each selected row, in order: its slots without those that have a text in the source; 0 for an image
    that cannot be read."""
    skipped: Mapping[str, int]
    """Condition to number of rows that it skips."""


@dataclass(frozen=True, slots=True)
class IndexedSource:
    """The rows of a source by its index, with the selection of a job applied."""

    job: JobConfig
    shards: Mapping[str, _ShardRows]
    """By path, in the order of the source; a shard that could not be read has no rows."""

    def counted(self) -> CountEstimate:
        """Return the number of all images."""
        images = sum(rows.num_rows for rows in self.shards.values())
        return CountEstimate(images=images, error=0.0, exact=True, sampled=len(self.shards), unreadable={}, left_out=())

    def num_images(self, shards: Sequence[Shard]) -> int:
        """Return the number of images of those of these shards that are in the index."""
        return sum(self.shards[shard.path].num_rows for shard in shards if shard.path in self.shards)

    def work(self, recipe: Recipe, shards: Sequence[Shard]) -> SelectedWork:
        """Return what a run would caption of the remaining shards."""
        left = {shard.path for shard in shards}
        within = self._within_limit()
        requests = array("H")
        skipped: Counter[str] = Counter()
        num_rows = 0
        for path, selected in within.items():
            if path in left:
                requests.extend(selected)
                num_rows += self.shards[path].num_rows
                skipped.update(self.shards[path].skipped)
        needed = [shard for shard in shards if shard.path in within]
        taken_over = sum(num_taken_over(open_store(url), self.job, recipe, needed) for url in self.job.reuse)
        num_slots = sum(len(slot.names) for slot in self.job.captions)
        per_image = sum(requests) / len(requests) if requests else float(num_slots)
        share = SelectedShare(
            screened=num_rows,
            share=len(requests) / num_rows if num_rows else 1.0,
            requests=per_image,
            skipped=dict(skipped),
        )
        return SelectedWork(
            shards=needed,
            images=len(requests),
            requests_per_image=max(0.0, per_image - taken_over / max(1, len(requests))),
            taken_over=taken_over,
            looked_at=share if skipped else None,
            counted=True,
        )

    def _within_limit(self) -> dict[str, array[int]]:
        """The selected rows by shard, without shards and rows behind the limit."""
        left = self.job.source.limit
        if left is None:
            return {path: rows.selected for path, rows in self.shards.items()}
        within: dict[str, array[int]] = {}
        for path, rows in self.shards.items():
            if not left:
                break
            within[path] = rows.selected[:left]
            left -= len(within[path])
        return within


def count_by_index(
    job: JobConfig,
    spec: ReadSpec,
    index: IndexFacts,
    shards: Sequence[Shard],
    duplicates: Mapping[str, Duplicates],
) -> IndexedSource | None:
    """Evaluate the selection of a job on the rows of its index; None if the index lacks a field that decides."""
    if not index.has_fields:
        return None
    with ThreadPoolExecutor(READERS) as pool:
        counts = pool.map(lambda shard: _count(spec, index, shard, duplicates.get(shard.path)), shards)
    return IndexedSource(job, {shard.path: rows for shard, rows in zip(shards, counts, strict=True)})


def _count(spec: ReadSpec, index: IndexFacts, shard: Shard, duplicates: Duplicates | None) -> _ShardRows:
    decided = index.decide(replace(spec.selection, duplicates=duplicates), shard)
    if decided is None:
        return _ShardRows(0, array("H"), {})
    selected = array("H")
    skipped: Counter[str] = Counter()
    for row in decided:
        if row.skip is not None:
            skipped[row.skip.condition] += 1
        elif not row.is_readable:
            selected.append(0)
        else:
            selected.append(spec.num_slots - len(existing_texts(spec.existing, spec.schemas, row.fields)))
    return _ShardRows(len(selected) + skipped.total(), selected, dict(skipped))
