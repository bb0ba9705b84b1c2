"""The duplicates of a job: found once, from the index, by the run that plans shards, and stored in the output."""

from collections.abc import Sequence

from pipeline.config import JobConfig
from pipeline.ledger.duplicates_record import DuplicatesRecord, claim_record, read_records
from pipeline.ledger.shard_plan import Plan
from pipeline.selection import Duplicates, Selection
from pipeline.stages.limit_rows import find_limit
from pipeline.stages.read_batches import ReadSpec
from pipeline.storage import Store
from schemas.shard import Shard

LIMIT_SHARDS = 16
"""Shards in which the rows of a limit are looked for first; then in four times as many, and so on."""


def refuse_unfit_index(job: JobConfig, shards: Sequence[Shard]) -> None:
    """Refuse an index that does not describe these shards, before anything is written to the output.

    Raises:
        ConfigError: it is no index, or lacks a hash or a field.
        OutputMismatch: it was made with other settings, or of other shards.
    """
    if job.source.duplicates is not None:
        from pipeline.index.followers import open_indexed_source  # noqa: PLC0415 - DuckDB, which few jobs need

        open_indexed_source(job, shards)


def claim_duplicates(
    job: JobConfig, store: Store, plan: Plan, selections: Sequence[Selection]
) -> Sequence[DuplicatesRecord | None]:
    """Return the record of each generation of a plan; those that are missing are made from the index, and stored.

    Args:
        job: the job.
        store: its output.
        plan: with the current URLs of its shards.
        selections: in force with each generation.

    Raises:
        ConfigError: as `open_indexed_source` and `find_followers`.
        OutputMismatch: the index is another one than that of an earlier record.
    """
    if job.source.duplicates is None:
        return ()
    records = read_records(store, len(plan.generations))
    missing = [number for number, record in enumerate(records) if record is None]
    if not missing:
        return records
    from pipeline.index.followers import (  # noqa: PLC0415 - DuckDB, which few jobs need
        Phase,
        find_followers,
        open_indexed_source,
        refuse_other_index,
    )

    source = open_indexed_source(job, list(plan.shards.values()))
    for record in records:
        if record is not None:
            refuse_other_index(store.url, record.index, source)
    phases = [
        Phase([plan.shards[shard.path] for shard in generation.shards], selection)
        for generation, selection in zip(plan.generations, selections, strict=True)
    ]
    with find_followers(source, phases) as followers:
        for number in missing:
            paths = [shard.path for shard in phases[number].shards]
            num_images = {path: followers.num_images[path] for path in paths if path in followers.num_images}
            records[number] = claim_record(store, number, source.identity, num_images, followers.of_phase(number))
    return records


def limit_without_duplicates(
    job: JobConfig, read: ReadSpec, shards: Sequence[Shard], limit: int
) -> dict[str, int | None]:
    """Return the shards that hold the first `limit` selected rows, as `find_limit`; duplicates are not counted.

    Whether a row is a duplicate depends only on rows before it. So the index is read only as far as it is needed.
    """
    if job.source.duplicates is None:
        return find_limit(read, shards, limit)
    number = LIMIT_SHARDS
    while True:
        first = shards[:number]
        end_rows = find_limit(read, first, limit, duplicates_by_shard(job, read.selection, first))
        is_reached = bool(end_rows) and list(end_rows.values())[-1] is not None
        if is_reached or number >= len(shards):
            return end_rows
        number *= 4


def duplicates_by_shard(job: JobConfig, selection: Selection, shards: Sequence[Shard]) -> dict[str, Duplicates]:
    """Return the duplicates among the rows of shards, by the index; none without `source.duplicates`."""
    config = job.source.duplicates
    if config is None:
        return {}
    from pipeline.index.followers import Phase, find_followers, open_indexed_source  # noqa: PLC0415 - as above

    with find_followers(open_indexed_source(job, shards), [Phase(shards, selection)]) as followers:
        leaders: dict[str, dict[int, str]] = {path: {} for path in followers.num_images}
        for table in followers.of_phase(0):
            columns = (table[name].to_pylist() for name in ("shard", "row", "leader_shard", "leader_row"))
            for shard, row, leader_shard, leader_row in zip(*columns, strict=True):
                leaders[shard][row] = f"{leader_shard}#{leader_row}"
        return {
            path: Duplicates(by=config.by, leaders=leaders[path], num_images=num_images)
            for path, num_images in followers.num_images.items()
        }
