"""`joyfleet unquarantine OUTPUT`: the next run reads the shards in quarantine again."""

import click

from jobs.output import open_index_output, open_output
from jobs.terminal import echo
from pipeline.ledger.quarantine import list_quarantine, remove_quarantine


@click.command()
@click.argument("output")
def unquarantine(output: str) -> None:
    """Take all shards of OUTPUT out of quarantine, so that the next `caption` or `index` reads them again."""
    index = open_index_output(output)
    opened = index or open_output(output)
    shards = [record.shard for record in list_quarantine(opened.store)]
    remove_quarantine(opened.store, shards)
    for shard in shards:
        echo(shard, one_line=True)
    click.echo(
        f"{len(shards)} shards out of quarantine; run `joyfleet {'index' if index else 'caption'}` again to read them"
    )
