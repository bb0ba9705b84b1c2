"""`joyfleet retry OUTPUT --rows STATUSES`: requests the failed and rejected rows of committed shards again."""

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


def _statuses(ctx: click.Context, option: click.Parameter, rows: str | None) -> list[Status]:
    """Parse `--rows`. It has no default: `retry OUTPUT` alone was the name of `unquarantine`, and costs no GPU time."""
    del option
    if rows is None:
        raise click.UsageError(
            "--rows is missing; give --rows failed, rejected, or failed,rejected. To read shards in quarantine again, "
            "use `joyfleet unquarantine OUTPUT`",
            ctx,
        )
    statuses = rows.split(",")
    if not set(statuses) <= set(RETRIED):
        raise click.BadParameter(f"{rows!r}; allowed: {', '.join(RETRIED)}, or both with a comma", ctx)
    return [Status(status) for status in statuses]


@click.command()
@click.argument("output")
@click.option(
    "--rows",
    "statuses",
    metavar="STATUSES",
    callback=_statuses,
    help="Required: the rows to retry, by status: failed, rejected, or failed,rejected.",
)
@click.option("--edited", is_flag=True, help="Also retry rows that `joyfleet amend` has edited; the edit is lost.")
@click.option(
    "--job",
    "job_file",
    type=click.Path(),
    help="The job file that made OUTPUT, instead of the config that OUTPUT holds.",
)
@set_option
def retry(
    output: str, statuses: Sequence[Status], job_file: str | None, overrides: Sequence[str], *, edited: bool
) -> None:
    """Request the failed or rejected rows of OUTPUT's committed shards again, and replace each shard's file once.

    The config that OUTPUT holds may be written by someone else. A setting that runs code, contacts servers or reads
    local files is refused until you repeat it with --job or --set. For shards in quarantine use
    `joyfleet unquarantine`.
    """
    _retry(job_of_output(output, job_file, overrides), statuses, edited=edited)


def _retry(job: JobConfig, statuses: Sequence[Status], *, edited: bool) -> None:
    SIGNALS.end_at_once(PLANNING)
    prepare_ray_env(job.cluster)
    # Ray reads its environment when it is imported, so not before the lines above.
    from pipeline.flow.prepared_job import prepare_retry  # noqa: PLC0415

    ahead = RayAhead(job)
    prepared = ahead.plan(lambda _: prepare_retry(job, statuses, edited=edited))
    num_images = sum(len(task.retry_rows.rows) for task in prepared.tasks if task.retry_rows)
    scope = f"{num_images:,} images in {len(prepared.tasks):,} shards"
    click.echo(f"{scope} have rows that are {' or '.join(statuses)}")
    if prepared.tasks:
        run_prepared(prepared, ahead.started())
