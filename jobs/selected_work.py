"""How much of a source a job's selection leaves to caption, for `joyfleet plan`: estimated, since counting reads all.

`source.sample` and `source.limit` are figures of the config. What `source.where` and `captions[].existing` leave is
estimated from the first rows of a few shards.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from pipeline.config import JobConfig
from pipeline.ledger.commit import checked_footer
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.ledger.limit_record import read_limit
from pipeline.ledger.taken_over import shards_to_take_over
from pipeline.recipe import Recipe
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.source_sample import SelectedShare, estimate_selection
from pipeline.storage import Store, open_store
from schemas.shard import Shard
from schemas.status import Status

READ_FILES = 32
"""Committed files of each output of `reuse` whose footers are read; the rest is assumed to be like them."""
READERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedWork:
    """The part of the remaining shards that a run would caption."""

    shards: Sequence[Shard]
    """Without those behind the limit, as far as their number can be estimated."""
    images: int
    """Selected."""
    requests_per_image: float
    """Without slots that take a text of the source, and without rows that are taken over."""
    taken_over: int
    """Caption rows of the outputs of `reuse`."""
    looked_at: SelectedShare | None
    """None where nothing had to be estimated."""
    counted: bool = False
    """Whether `images` is exact, by an index."""

    def as_json(self) -> dict[str, Any]:
        """Return the figures that `plan` prints."""
        return {
            "images": self.images,
            "counted": self.counted,
            "requests_per_image": round(self.requests_per_image, 4),
            "taken_over": self.taken_over,
            "screened": None if self.looked_at is None else asdict(self.looked_at),
        }


def selected_work(
    job: JobConfig, recipe: Recipe, spec: ReadSpec, shards: Sequence[Shard], num_images: int
) -> SelectedWork:
    """Estimate what a run would caption of the remaining shards.

    Args:
        job: the job.
        recipe: of the job.
        spec: how its shards are read.
        shards: the remaining ones, in order.
        num_images: of these shards.
    """
    looked_at = None
    if spec.selection.parts or spec.existing or any(spec.source.parent_needs):
        # Without the sample, which would leave few of the rows that are looked at.
        looked_at = estimate_selection(replace(spec, selection=replace(spec.selection, sample=None)), shards)
    share = (looked_at.share if looked_at else 1.0) * (job.source.sample or 1.0)
    images = num_images * share
    needed, images = _within_limit(job, shards, images)
    requests = looked_at.requests if looked_at else float(spec.num_slots)
    taken_over = sum(num_taken_over(open_store(url), job, recipe, needed) for url in job.reuse)
    left = max(0.0, requests - taken_over / images) if images else requests
    return SelectedWork(
        shards=needed, images=round(images), requests_per_image=left, taken_over=taken_over, looked_at=looked_at
    )


def _within_limit(job: JobConfig, shards: Sequence[Shard], images: float) -> tuple[Sequence[Shard], float]:
    limit = job.source.limit
    if limit is None or not shards or not images:
        return shards, images
    fixed = read_limit(open_store(job.output))
    if fixed is not None:
        needed = [shard for shard in shards if shard.path in fixed]
        return needed, min(images, limit * len(needed) / max(1, len(fixed)))
    num_needed = min(len(shards), ceil(limit / (images / len(shards))))
    return shards[:num_needed], min(images, float(limit))


def num_taken_over(earlier: Store, job: JobConfig, recipe: Recipe, shards: Sequence[Shard]) -> int:
    """Caption rows of an earlier output that a run would take over."""
    done = shards_to_take_over(earlier, open_store(job.output), recipe, shards)
    chosen = [shard for shard in shards if shard.path in done][:READ_FILES]
    identity = RunIdentity(
        recipe=recipe.fingerprint, slots=tuple(name for slot in job.captions for name in slot.names), versions={}
    )

    def num_ok(shard: Shard) -> int:
        footer, _ = checked_footer(earlier, earlier.get(committed_path(shard.path)), identity, shard)
        return (footer.statuses or {}).get(Status.OK, 0)

    with ThreadPoolExecutor(READERS) as pool:
        counts = list(pool.map(num_ok, chosen))
    return round(sum(counts) / len(counts) * len(done)) if counts else 0
