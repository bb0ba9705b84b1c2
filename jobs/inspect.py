"""`joyfleet plan job.yaml` before a run, `joyfleet status OUTPUT` at any time: what is done and what is left."""

from __future__ import annotations

from collections.abc import Sequence

import click

from jobs.caption import set_option
from jobs.output import open_output
from jobs.progress import size
from pipeline.config import load_job
from pipeline.ledger.plan import remaining
from pipeline.ledger.quarantine import list_quarantine
from pipeline.prompts import check_captions
from pipeline.readers import list_shards


@click.command()
@click.argument("job_file", type=click.Path())
@set_option
def plan(job_file: str, overrides: Sequence[str]) -> None:
    """Check JOB_FILE and list the shards of its source; writes nothing."""
    job = load_job(job_file, overrides)
    for remark in check_captions(job):
        click.echo(f"joyfleet: note: {remark}", err=True)
    shards = list_shards(job.source)
    for shard in shards:
        click.echo(f"{size(shard.size):>10}  {shard.path}")
    total = sum(shard.size for shard in shards)
    click.echo(
        f"{len(shards):,} shards, {size(total)}; captions per image: {sum(slot.samples for slot in job.captions)}"
    )


@click.command()
@click.argument("output")
def status(output: str) -> None:
    """Tell how far OUTPUT is: shards committed, staged, in quarantine and left."""
    opened = open_output(output)
    left = remaining(opened.store, opened.plan)
    staged = sum(1 for fragments in left.fragments.values() if fragments)
    click.echo(f"recipe      {opened.run.recipe}, slots {', '.join(opened.run.slots)}")
    click.echo(f"planned     {len(opened.plan.shards):,} shards")
    click.echo(f"committed   {len(left.committed):,}")
    click.echo(f"left        {len(left.fragments):,}, of which {staged:,} are partly staged")
    click.echo(f"quarantine  {len(left.quarantined):,}")
    for record in list_quarantine(opened.store):
        click.echo(f"  {record.shard}: {record.message}")
