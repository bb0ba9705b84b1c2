"""`joyfleet clean OUTPUT`: removes leftovers of killed runs."""

import click

from jobs.output import open_index_output, open_output
from jobs.terminal import echo
from pipeline.ledger.staging_cleanup import clean as remove_leftovers

SHOWN = 20
"""Kept files that are listed."""


@click.command()
@click.argument("output")
@click.option("--dry-run", is_flag=True, help="List the files that would be removed, and remove none.")
def clean(output: str, *, dry_run: bool) -> None:
    """Remove what killed runs left in OUTPUT's staging folder; committed files are never touched.

    It removes only files with the names of JoyFleet's own files, and nothing behind a link. Other files are listed and
    kept.
    """
    opened = open_index_output(output) or open_output(output)
    cleaned = remove_leftovers(opened.store, opened.run, opened.plan, dry_run=dry_run)
    for path in cleaned.removed:
        echo(path, one_line=True)
    for path, reason in list(cleaned.kept.items())[:SHOWN]:
        echo(f"note: {path} is kept: {reason}")
    if len(cleaned.kept) > SHOWN:
        click.echo(f"note: {len(cleaned.kept) - SHOWN:,} more files are kept")
    click.echo(f"{len(cleaned.removed)} files {'would be ' if dry_run else ''}removed")
