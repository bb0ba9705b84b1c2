"""`joyfleet retry OUTPUT` and `joyfleet clean OUTPUT`: a second chance for what failed, and an end for leftovers."""

from __future__ import annotations

from collections.abc import Sequence

import click

from jobs.caption import import_ahead, run_prepared, set_option
from jobs.output import open_output
from jobs.stop import stop_on_signals
from jobs.terminal import echo
from pipeline.config import parse_job
from pipeline.flow.isolate import isolate_ray
from pipeline.ledger.clean import clean as remove_leftovers
from pipeline.ledger.quarantine import list_quarantine, remove_quarantine
from pipeline.ledger.run_record import read_run
from pipeline.storage import open_store
from schemas.status import Status

RETRIED = (Status.FAILED, Status.REJECTED)


@click.command()
@click.argument("output")
@click.option(
    "--rows",
    metavar="STATUSES",
    help="Ask the rows of committed shards that are failed, rejected, or failed,rejected again, and replace each file.",
)
@set_option
def retry(output: str, rows: str | None, overrides: Sequence[str]) -> None:
    """Take the shards of OUTPUT out of quarantine, for the next `caption` to read; or ask ROWS again, at once."""
    if rows is not None:
        _retry_rows(output, _statuses(rows), overrides)
        return
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


def _retry_rows(output: str, statuses: Sequence[Status], overrides: Sequence[str]) -> None:
    """Run the job that `run.json` describes over these rows."""
    described = read_run(open_store(output)).about["job"]
    job = parse_job({**described, "output": output}, overrides, origin=f"{output}/run.json")
    isolate_ray(job.cluster)
    with stop_on_signals() as stop:
        # Ray reads its environment when it is imported, so not before the lines above.
        from pipeline.flow.job import prepare_retry  # noqa: PLC0415

        import_ahead()
        prepared = prepare_retry(job, statuses)
        num_images = sum(len(work.unwell.rows) for work in prepared.works if work.unwell)
        found = f"{num_images:,} images in {len(prepared.works):,} shards"
        click.echo(f"{found} have rows that are {' or '.join(statuses)}")
        if prepared.works:
            run_prepared(prepared, stop)


@click.command()
@click.argument("output")
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
def clean(output: str, *, dry_run: bool) -> None:
    """Remove what killed runs left in OUTPUT's staging; committed files are never touched."""
    opened = open_output(output)
    removed = remove_leftovers(opened.store, opened.run, opened.plan, dry_run=dry_run)
    for path in removed:
        echo(path, one_line=True)
    click.echo(f"{len(removed)} files {'would be ' if dry_run else ''}removed")
