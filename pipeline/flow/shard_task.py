"""The unit of planning: one shard, with what an earlier run staged of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.ledger.retry_rows import RetryRows
from schemas.shard import Shard


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to caption."""

    shard: Shard
    fragments: tuple[str, ...]
    """Paths found when the run was planned. Fixed then: a retried reader must see what the first one saw."""
    retry_rows: RetryRows | None = None
    """Set for a committed shard of which some rows are captioned again."""
