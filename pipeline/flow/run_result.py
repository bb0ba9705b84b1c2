"""What a run did, for the summary, the exit code, the lifecycle events and the metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.ledger.quarantine import list_quarantine
from pipeline.readers import LeftOut
from schemas.status import no_rows

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob


@dataclass(kw_only=True)
class RunResult:
    """Filled while the run works, so that an interrupted or failed run has a summary too."""

    shards_planned: int
    shards_before: int
    """Committed by earlier runs."""
    shards_committed: int = 0
    shards_lost: list[str] = field(default_factory=list)
    """Committed by another run while this run worked on them."""
    shards_quarantined: dict[str, str] = field(default_factory=dict)
    """Shard to reason, earlier runs included."""
    left_out: list[LeftOut] = field(default_factory=list)
    """Images in the shards that this run read that are not rows of their own."""
    images: int = 0
    """In the shards that this run committed."""
    images_captioned: int = 0
    """Staged by this run, also in shards that are not committed."""
    images_resumed: int = 0
    """Taken over from fragments of earlier runs."""
    captions_taken_over: int = 0
    """Caption rows of the outputs of `reuse`, also in shards that are not committed."""
    statuses: dict[str, int] = field(default_factory=no_rows)
    """Caption rows in the shards that this run committed."""
    skipped: dict[str, int] = field(default_factory=dict[str, int])
    """Of them, the skipped ones by the condition that skipped them."""
    seconds: float = 0.0
    worker_logs: str | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of a run that no error ended: 3 when shards are in quarantine, else 0."""
        return 3 if self.shards_quarantined else 0

    def skipped_by_most(self) -> list[tuple[str, int]]:
        """Return the conditions that skipped rows, the one with the most rows first."""
        return sorted(self.skipped.items(), key=lambda item: (-item[1], item[0]))

    @classmethod
    def of(cls, prepared: PreparedJob) -> RunResult:
        """Return the result before the run starts: what earlier runs committed and quarantined."""
        messages = {record.shard: record.message for record in list_quarantine(prepared.store)}
        return cls(
            shards_planned=len(prepared.plan.shards),
            shards_before=len(prepared.remaining.committed - {task.shard.path for task in prepared.tasks}),
            shards_quarantined={shard: messages[shard] for shard in prepared.remaining.quarantined},
        )
