"""The unit of work: one shard, with the fragments that earlier runs staged for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.ledger.duplicates_record import FollowerFiles, read_followers
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.retry_rows import RetryRows, read_other_rows
from pipeline.ledger.taken_over import TakenOver, read_taken_over
from pipeline.selection import Duplicates, Selection
from pipeline.storage import Store
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
    duplicates: FollowerFiles | None = None
    """Where its followers are; None without `source.duplicates`, and for a shard that the index could not read."""


def may_take_over(tasks: Sequence[ShardTask]) -> bool:
    """Return whether a restarted replica may take over what its former process staged of the shards of these tasks.

    Not in a retry: its readers ignore the staging of committed shards, which may hold rows of an earlier attempt.
    """
    return all(task.retry_rows is None for task in tasks)


def selection_of_task(selection: Selection, task: ShardTask, store: Store, by: str) -> Selection:
    """Return the selection for the shard of a task.

    Args:
        selection: of the run.
        task: the task.
        store: the output.
        by: as `source.duplicates.by`; unused where the task has no duplicates.

    Raises:
        StoreError: a file of followers is damaged or gone.
    """
    is_retry = task.retry_rows is not None and not task.retry_rows.screened
    retried = frozenset(task.retry_rows.rows) if is_retry and task.retry_rows else frozenset[int]()
    duplicates = None
    if task.duplicates is not None:
        duplicates = Duplicates(
            by=by,
            leaders=read_followers(store, task.duplicates, task.shard.path),
            num_images=task.duplicates.num_images,
            asked=retried,
        )
    # Rows of a retry were asked before, or stand in for a leader: nothing skips them.
    of_run = Selection() if is_retry else selection.up_to(task.end_row)
    return replace(of_run, duplicates=duplicates)


def taken_over_of_task(task: ShardTask, store: Store, earlier: Sequence[Store], run: RunIdentity) -> TakenOver:
    """Return the caption rows of a task's images for which no request is sent.

    These are rows of `reuse`, and in a retry the rows of the committed file that stay as they are.

    Args:
        task: the task.
        store: the output.
        earlier: the outputs of `reuse`.
        run: recipe and slots.

    Raises:
        OutputMismatch: a file belongs to another shard or recipe.
        StoreError: a file is damaged or gone.
    """
    reused = read_taken_over([earlier[index] for index in task.earlier], run, task.shard)
    if task.retry_rows is None:
        return reused
    return read_other_rows(store, run, task.shard, task.retry_rows).or_else(reused)
