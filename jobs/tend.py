"""`joyfleet retry OUTPUT` and `joyfleet clean OUTPUT`: a second chance for what failed, and an end for leftovers."""

from __future__ import annotations

from collections.abc import Sequence

import click

from jobs.caption import import_ahead, run_prepared, set_option
from jobs.output import job_of_output, open_output
from jobs.signals import stop_on_signals
from jobs.terminal import echo
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.flow.ray_env import prepare_ray_env
from pipeline.ledger.quarantine import list_quarantine, remove_quarantine
from pipeline.ledger.staging_cleanup import clean as remove_leftovers
from schemas.status import Status

SHOWN = 20
"""Files that stay, listed."""

RETRIED = (Status.FAILED, Status.REJECTED)


@click.command()
@click.argument("output")
@click.option(
    "--rows",
    metavar="STATUSES",
    help="Ask the rows of committed shards that are failed, rejected, or failed,rejected again, and replace each file.",
)
@click.option(
    "--job",
    "job_file",
    type=click.Path(),
    help="--rows: the job file that made OUTPUT, instead of what OUTPUT says of it.",
)
@set_option
def retry(output: str, rows: str | None, job_file: str | None, overrides: Sequence[str]) -> None:
    """Take the shards of OUTPUT out of quarantine, for the next `caption` to read; or ask ROWS again, at once.

    OUTPUT's own description of its job is data: what would run code, reach servers or read files of this machine is
    refused until it is said again, by --job or --set.
    """
    if rows is not None:
        _retry_rows(job_of_output(output, job_file, overrides), _statuses(rows))
        return
    if job_file is not None:
        raise ConfigError("retry: --job holds for --rows alone")
    opened = open_output(output)
    shards = [record.shard for record in list_quarantine(opened.store)]
    remove_quarantine(opened.store, shards)
    for shard in shards:
        echo(shard, one_line=True)
    click.echo(f"{len(shards)} shards out of quarantine; run `joyfleet caption` again to read them")


def _statuses(rows: str) -> list[Status]:
    found = rows.split(",")
    if not set(found) <= set(RETRIED):
        raise click.BadParameter(f"{rows!r}; allowed: {', '.join(RETRIED)}, or both with a comma", param_hint="--rows")
    return [Status(status) for status in found]


def _retry_rows(job: JobConfig, statuses: Sequence[Status]) -> None:
    """Run a job over the rows of these statuses."""
    prepare_ray_env(job.cluster)
    with stop_on_signals() as stop:
        # Ray reads its environment when it is imported, so not before the lines above.
        from pipeline.flow.prepared_job import prepare_retry  # noqa: PLC0415

        import_ahead()
        prepared = prepare_retry(job, statuses)
        num_images = sum(len(work.retry_rows.rows) for work in prepared.works if work.retry_rows)
        found = f"{num_images:,} images in {len(prepared.works):,} shards"
        click.echo(f"{found} have rows that are {' or '.join(statuses)}")
        if prepared.works:
            run_prepared(prepared, stop)


@click.command()
@click.argument("output")
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
def clean(output: str, *, dry_run: bool) -> None:
    """Remove what killed runs left in OUTPUT's staging; committed files are never touched.

    Only files with the names that JoyFleet gives its own, and none behind a link: others are listed, and stay.
    """
    opened = open_output(output)
    cleaned = remove_leftovers(opened.store, opened.run, opened.plan, dry_run=dry_run)
    for path in cleaned.removed:
        echo(path, one_line=True)
    for path, reason in list(cleaned.kept.items())[:SHOWN]:
        echo(f"note: {path} stays: {reason}")
    if len(cleaned.kept) > SHOWN:
        click.echo(f"note: {len(cleaned.kept) - SHOWN:,} more stay")
    click.echo(f"{len(cleaned.removed)} files {'would be ' if dry_run else ''}removed")
