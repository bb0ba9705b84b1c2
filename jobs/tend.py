"""`joyfleet retry OUTPUT` and `joyfleet clean OUTPUT`: the two things that may be removed from an output."""

from __future__ import annotations

import click

from jobs.output import open_output
from pipeline.ledger.clean import clean as remove_leftovers
from pipeline.ledger.quarantine import list_quarantine, remove_quarantine


@click.command()
@click.argument("output")
def retry(output: str) -> None:
    """Take the shards of OUTPUT out of quarantine; the next `caption` reads them again."""
    opened = open_output(output)
    shards = [record.shard for record in list_quarantine(opened.store)]
    remove_quarantine(opened.store, shards)
    for shard in shards:
        click.echo(shard)
    click.echo(f"{len(shards)} shards out of quarantine; run `joyfleet caption` again to read them")


@click.command()
@click.argument("output")
@click.option("--dry-run", is_flag=True, help="Only list what would go.")
def clean(output: str, *, dry_run: bool) -> None:
    """Remove what killed runs left in OUTPUT's staging; committed files are never touched."""
    opened = open_output(output)
    removed = remove_leftovers(opened.store, opened.run, opened.plan, dry_run=dry_run)
    for path in removed:
        click.echo(path)
    click.echo(f"{len(removed)} files {'would be ' if dry_run else ''}removed")
