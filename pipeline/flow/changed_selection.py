"""A selection that changes: a generation of the plan records it, and rows that it newly selects are captioned.

Captions that the output has stay, also of rows that the new selection would skip.
"""

from collections.abc import Sequence

from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.flow.extension import Extension
from pipeline.flow.job_duplicates import limit_without_duplicates, refuse_unfit_index
from pipeline.ledger.plan_generations import SelectionChange
from pipeline.ledger.plan_selection import current_selection, refuse_impossible_change, selection_differences
from pipeline.ledger.run_record import RunRecord
from pipeline.ledger.shard_plan import Plan, extend_plan, remaining
from pipeline.stages.read_batches import ReadSpec
from pipeline.storage import Store
from schemas.shard import Shard


def is_changed(job: JobConfig, store: Store, record: RunRecord, plan: Plan) -> bool:
    """Return whether a job has another selection than its output, after a check that the output can follow it.

    Raises:
        ConfigError: it cannot: names the key.
    """
    stored, selection = current_selection(record.selection, plan), job.source.selection()
    if not selection_differences(stored, selection):
        return False
    refuse_impossible_change(store, stored, selection)
    changed = plan.last_change
    if changed and not changed.is_applied:
        raise ConfigError(
            f"{store.url}: --extend with another selection, while rows that generation {changed.number} of the plan "
            "newly selects are not all captioned yet; run the job with that selection first"
        )
    return True


def change_selection(job: JobConfig, store: Store, read: ReadSpec, plan: Plan, extension: Extension) -> Plan:
    """Add the selection of a job to the plan of its output, with the new shards that it needs.

    Args:
        job: the job.
        store: its output.
        read: how its shards are read, with the new selection.
        plan: of the output, with the current URLs of its shards and those that it does not have.
        extension: which of these may be added.

    Raises:
        ConfigError: rows of shards that are not committed yet may be leaders of duplicates.
        PlanExtended: another run has extended the plan at the same time; nothing was written.
    """
    if job.source.duplicates is not None and remaining(store, plan).fragments:
        raise ConfigError(
            f"{store.url}: --extend with another selection and source.duplicates, while shards are not committed yet, "
            "whose images may be those that others wait for; finish the job with the old selection first"
        )
    added: Sequence[Shard] = extension.settled(plan.unplanned)
    end_rows: dict[str, int] = {}
    if job.source.limit is not None:
        planned = list(plan.shards.values())
        ends = limit_without_duplicates(job, read, [*planned, *added], job.source.limit)
        added = [shard for shard in added if shard.path in ends]
        of_all = {shard.path: ends.get(shard.path, 0) for shard in (*planned, *added)}
        end_rows = {path: end for path, end in of_all.items() if end is not None}
    refuse_unfit_index(job, [*plan.shards.values(), *added])
    return extend_plan(store, plan, added, SelectionChange(job.source.selection(), end_rows))


def changed_remark(plan: Plan) -> str:
    """Say that the selection of the output has just changed."""
    generation = plan.generations[-1]
    return (
        f"source: the selection of this output is now that of this run: generation {generation.number} of its plan, "
        f"with {len(generation.shards)} new shards. Rows that it newly selects are captioned; captions that exist stay"
    )
