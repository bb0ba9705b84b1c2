"""`joyfleet plan job.yaml`: what a job would do."""

from __future__ import annotations

from collections.abc import Sequence

import click

from jobs.caption import set_option
from jobs.progress import size
from pipeline.config import load_job
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
    click.echo(f"{len(shards):,} shards, {size(total)}; captions per image: {len(job.captions)}")
