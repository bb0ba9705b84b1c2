"""The unit of work: one shard, with the fragments that earlier runs staged for it."""

from dataclasses import dataclass

from pipeline.ledger.retry_rows import RetryRows
from schemas.shard import Shard


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to caption."""

    shard: Shard
    fragments: tuple[str, ...]
    """Paths at the time of planning. They stay fixed: a repeated reader must read the same as the first reader."""
    retry_rows: RetryRows | None = None
    """Set for a committed shard of which some rows are captioned again."""
    end_row: int | None = None
    """Rows from this number on are beyond `source.limit`; None: none is."""
    earlier: tuple[int, ...] = ()
    """Indices of the outputs of `reuse` that had committed the shard at the time of planning."""
