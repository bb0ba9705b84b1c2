"""Samples a few images of a source: a pure function of seed and shards, so that each call gets the same images.

Shards are taken in the order of their hashes with the seed, `SHARDS` at a time. Of each, the selected rows with the
smallest hashes among its first `HEAD_ROWS` are taken. So the amount that is read is bounded, whatever the size of the
source. `source.limit` is not applied: where its end is would have to be counted.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.errors import ShardUnreadable
from pipeline.images import IsolatedDecoder
from pipeline.readers import ShardReader, SourceRow, open_head
from pipeline.stages.existing_texts import existing_texts
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.row_screen import RowScreen
from schemas.shard import Shard

log = logging.getLogger(__name__)

SHARDS = 8
"""Shards that are sampled together, and read concurrently."""
HEAD_ROWS = 500
"""A tar in a store takes about one request for each row: some seconds."""
MAX_FILTERED_SHARDS = 64
"""Shards that are looked into where a selection may leave little of each."""
SCREENED_ROWS = 32
"""Rows that are screened together at least, until a shard has given its share of the sample."""


@dataclass(frozen=True, slots=True)
class SampledShard:
    """The sampled rows of one shard, in its order."""

    shard: Shard
    num_images: int
    """Images that the reader knows, at least those up to the last sampled one."""
    rows: tuple[SourceRow, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The sampled rows, and the shards that could not be read."""

    shards: tuple[SampledShard, ...]
    unreadable: tuple[str, ...]
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Condition to number of the screened rows that it skips."""


@dataclass(frozen=True, slots=True)
class SelectedShare:
    """How much of a source a selection leaves, from the first rows of some shards."""

    screened: int
    """Rows that were looked at."""
    share: float
    """Of them, those that are selected."""
    requests: float
    """Requests of a selected image: its slots without those that have a text in the source."""
    skipped: Mapping[str, int]
    """Condition to number of rows that it skips."""


def estimate_selection(spec: ReadSpec, shards: Sequence[Shard]) -> SelectedShare:
    """Screen the first `SCREENED_ROWS` rows of up to `SHARDS` shards, evenly spread; unreadable ones are left out."""
    step = max(1, -(-len(shards) // SHARDS))
    chosen = [shard for shard in shards[step // 2 :: step] if shard.size]
    with ThreadPoolExecutor(SHARDS) as pool:
        screened = [result for result in pool.map(lambda shard: _screen_head(spec, shard), chosen) if result]
    skipped = sum((counts for _, _, counts in screened), Counter[str]())
    num_selected = sum(selected for selected, _, _ in screened)
    num_requests = sum(requests for _, requests, _ in screened)
    num_rows = num_selected + skipped.total()
    return SelectedShare(
        screened=num_rows,
        share=num_selected / num_rows if num_rows else 1.0,
        requests=num_requests / num_selected if num_selected else float(spec.num_slots),
        skipped=dict(skipped),
    )


def _screen_head(spec: ReadSpec, shard: Shard) -> tuple[int, int, Counter[str]] | None:
    """Selected rows, their requests, and skipped rows by condition; None for a shard that cannot be read."""
    skipped: Counter[str] = Counter()
    num_selected = num_requests = 0
    try:
        with _opened(spec, shard, SCREENED_ROWS) as (opened, screen):
            for row in opened.rows(range(min(opened.num_images, SCREENED_ROWS)), screen.before_image):
                skip = screen.skip_of(row)
                if skip is not None:
                    skipped[skip.condition] += 1
                    continue
                num_selected += 1
                texts = existing_texts(spec.existing, spec.schemas, row.metadata | row.tested)
                num_requests += spec.num_slots - len(texts)
    except ShardUnreadable as err:
        log.warning("%s", err)
        return None
    return num_selected, num_requests, skipped


@contextmanager
def _opened(
    spec: ReadSpec, shard: Shard, num_images: int, fields: Sequence[str] = ()
) -> Iterator[tuple[ShardReader, RowScreen]]:
    with (
        IsolatedDecoder() as decoder,
        open_head(shard, spec.source, spec.images.max_bytes, num_images, fields) as opened,
    ):
        yield opened, RowScreen(spec.selection, spec.images, shard.path, decoder.header)


def draw_sample(spec: ReadSpec, shards: Sequence[Shard], seed: int, num_images: int) -> Sample:
    """Sample selected images spread over the shards; fewer than `num_images` only if these shards have no more.

    A shard that cannot be read is named in the result, and the next one takes its place.
    """
    ordered = sorted(shards, key=lambda shard: _hash(seed, shard.path))
    if not spec.selection.selects_all:
        ordered = ordered[:MAX_FILTERED_SHARDS]
    skipped: Counter[str] = Counter()
    drawn: list[SampledShard] = []
    unreadable: list[str] = []
    left = num_images
    with ThreadPoolExecutor(SHARDS) as pool:
        while left > 0 and ordered:
            group, ordered = ordered[:SHARDS], ordered[SHARDS:]
            # If these have too few images, the next group supplies the rest.
            quotas = [left // len(group) + (index < left % len(group)) for index in range(len(group))]
            jobs = [pool.submit(_draw, spec, shard, seed, quota) for shard, quota in zip(group, quotas, strict=True)]
            for job in jobs:
                try:
                    sampled, of_shard = job.result()
                    drawn.append(sampled)
                    skipped.update(of_shard)
                except ShardUnreadable as err:
                    log.warning("%s", err)
                    unreadable.append(str(err))
            left = num_images - sum(len(sampled.rows) for sampled in drawn)
    return Sample(tuple(sampled for sampled in drawn if sampled.rows), tuple(unreadable), dict(skipped))


def _draw(spec: ReadSpec, shard: Shard, seed: int, quota: int) -> tuple[SampledShard, Counter[str]]:
    skipped: Counter[str] = Counter()
    if not quota:
        return SampledShard(shard, 0, ()), skipped
    rows: list[SourceRow] = []
    with _opened(spec, shard, HEAD_ROWS, spec.source.optional_fields) as (opened, screen):
        numbers = sorted(range(min(opened.num_images, HEAD_ROWS)), key=lambda row: _hash(seed, shard.path, row))
        step = quota if spec.selection.selects_all else max(quota, SCREENED_ROWS)
        for start in range(0, len(numbers), step):
            selected: dict[int, SourceRow] = {}
            for row in opened.rows(set(numbers[start : start + step]), screen.before_image):
                skip = screen.skip_of(row)
                if skip is None:
                    selected[row.row] = row
                else:
                    skipped[skip.condition] += 1
            # By hash, as without a selection.
            rows += [selected[number] for number in numbers[start : start + step] if number in selected]
            if len(rows) >= quota:
                break
        chosen = sorted(rows[:quota], key=lambda row: row.row)
        return SampledShard(shard, opened.num_images, tuple(chosen)), skipped


def _hash(*parts: str | int) -> bytes:
    text = "\x1f".join(str(part) for part in ("sample", *parts))
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
