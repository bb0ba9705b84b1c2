"""What `--extend` and `--follow` add to a plan, and what they leave for a later run."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.ledger.shard_plan import Plan
from schemas.shard import Shard

MTIME = "mtime-"
"""Begins the etag of a shard on a disk, in ns since the epoch."""


@dataclass(frozen=True, slots=True)
class Extension:
    """Which shards that the plan does not have are added to it."""

    quiet_s: float = 0.0
    """A file on a disk that was written within so many seconds is left for a later run: its writer may not be done, and
    a planned shard must not change. A store shows whole objects only."""

    def settled(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards that nothing is writing to any more."""
        now = time.time()
        return [shard for shard in shards if not self._is_fresh(shard, now)]

    def _is_fresh(self, shard: Shard, now: float) -> bool:
        if not shard.etag.startswith(MTIME):
            return False
        # A time in the future is a copied one, or a file server's whose clock is a moment ahead.
        return abs(now - int(shard.etag.removeprefix(MTIME)) / 1e9) < self.quiet_s


def unplanned_remark(plan: Plan, extension: Extension | None = None) -> str:
    """Say that shards of the source are not in the plan, and what adds them."""
    number, example = len(plan.unplanned), plan.unplanned[0].path
    which = f"source: {number} shards, such as {example}, are not in the plan of this output"
    if extension:
        return f"{which}: they were written within the last {extension.quiet_s:g} s and wait for a later round"
    return (
        f"{which}: they were added after its last generation and are skipped; `joyfleet caption JOB --extend` adds them"
    )
