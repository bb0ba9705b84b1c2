"""`joyfleet retry OUTPUT --rows WHICH`: requests the failed, rejected or stale rows of committed shards again."""

from collections.abc import Sequence

import click

from jobs.caption import PLANNING, run_prepared
from jobs.job_file import set_option
from jobs.output import job_of_output
from jobs.ray_ahead import RayAhead
from jobs.signals import SIGNALS
from pipeline.config import JobConfig
from pipeline.flow.ray_env import prepare_ray_env
from schemas.status import Status

RETRIED = (Status.FAILED, Status.REJECTED)
STALE = "stale"
"""Of `--rows`: rows of a chained job whose captions of the parent have changed."""
DUPLICATES = "duplicates-of-failed"
"""Of `--rows`: in place of each leader that failed, its next duplicate."""
ALONE = (STALE, DUPLICATES)


def _checked(ctx: click.Context, option: click.Parameter, rows: str | None) -> str:
    """Check `--rows`. It has no default: `retry OUTPUT` alone was the name of `unquarantine`, and costs no GPU time."""
    del option
    if rows is None:
        raise click.UsageError(
            f"--rows is missing; give --rows failed, rejected, failed,rejected, {STALE} or {DUPLICATES}. To read "
            "shards in quarantine again, use `joyfleet unquarantine OUTPUT`",
            ctx,
        )
    if rows not in ALONE and not set(rows.split(",")) <= set(RETRIED):
        raise click.BadParameter(
            f"{rows!r}; allowed: {', '.join(RETRIED)}, or both with a comma; {DUPLICATES} or {STALE}, alone",
            ctx,
        )
    return rows


@click.command()
@click.argument("output")
@click.option(
    "--rows",
    metavar="WHICH",
    callback=_checked,
    help="Required: the rows to retry, by status: failed, rejected, or failed,rejected; or stale, the rows of a "
    "chained job whose captions of the parent have changed; or duplicates-of-failed: where an image failed that others "
    "are duplicates of, the next of these.",
)
@click.option("--edited", is_flag=True, help="Also retry rows that `joyfleet amend` has edited; the edit is lost.")
@click.option(
    "--job",
    "job_file",
    type=click.Path(),
    help="The job file that made OUTPUT, instead of the config that OUTPUT holds.",
)
@set_option
def retry(output: str, rows: str, job_file: str | None, overrides: Sequence[str], *, edited: bool) -> None:
    """Request the failed, rejected or stale rows of OUTPUT's committed shards again; replace each shard's file once.

    The config that OUTPUT holds may be written by someone else. A setting that runs code, contacts servers or reads
    local files is refused until you repeat it with --job or --set. For shards in quarantine use
    `joyfleet unquarantine`.
    """
    if edited and rows == DUPLICATES:
        raise click.UsageError(
            f"--edited beside --rows {DUPLICATES}: rows that were never asked have no edits; leave it out"
        )
    _retry(job_of_output(output, job_file, overrides), rows, edited=edited)


def _retry(job: JobConfig, rows: str, *, edited: bool) -> None:
    SIGNALS.end_at_once(PLANNING)
    prepare_ray_env(job.cluster)
    # Ray reads its environment when it is imported, so not before the lines above.
    from pipeline.flow.prepared_job import prepare_retry, prepare_stand_ins  # noqa: PLC0415

    ahead = RayAhead(job)
    if rows == DUPLICATES:
        prepared = ahead.plan(lambda _: prepare_stand_ins(job))
        which = "are captioned in place of images that failed"
    else:
        statuses = [] if rows == STALE else [Status(status) for status in rows.split(",")]
        prepared = ahead.plan(lambda _: prepare_retry(job, statuses, stale=rows == STALE, edited=edited))
        which = f"have rows that are {' or '.join(statuses) or STALE}"
    num_images = sum(len(task.retry_rows.rows) for task in prepared.tasks if task.retry_rows)
    click.echo(f"{num_images:,} images in {len(prepared.tasks):,} shards {which}")
    if prepared.tasks:
        run_prepared(prepared, ahead.started())
