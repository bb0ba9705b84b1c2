"""`joyfleet verify OUTPUT`: proves exactly-once from the source again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import click

from jobs.output import Output, open_output
from jobs.terminal import echo
from pipeline.errors import ShardUnreadable
from pipeline.ledger.plan import claim_plan, remaining
from pipeline.ledger.verify import Violation, ViolationKind, verify_shard, verify_tree
from pipeline.readers import list_shards, open_shard
from schemas.shard import Shard

THREADS = 8
"""Shards looked at together: most of the time is waiting for storage."""


@click.command()
@click.argument("output")
def verify(output: str) -> None:
    """Check that every source row of OUTPUT's plan has each slot exactly once; report every violation.

    Exit code 0: proven. 1: a violation. 3: proven, but shards are in quarantine.
    """
    opened = open_output(output)
    # The plan's URLs are those of the first run; the source may have moved, and must not have changed.
    current = claim_plan(opened.store, list_shards(opened.source))
    verdict = verify_tree(opened.store, current)
    committed = remaining(opened.store, current).committed
    shards = [shard for shard in current.shards.values() if shard.path in committed]
    quarantined = [one for one in verdict.violations if one.kind is ViolationKind.QUARANTINED]
    broken = [one for one in verdict.violations if one.kind is not ViolationKind.QUARANTINED]
    num_images = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for images, found in pool.map(lambda shard: _check(opened, shard), shards):
            num_images += images
            broken += found
    for one in [*broken, *quarantined]:
        echo(f"{one.kind}: {one.shard}: {one.detail}")
    for remark in verdict.remarks:
        echo(f"note: {remark}")
    rows = num_images * len(opened.run.slots)
    click.echo(
        f"{len(shards):,} of {len(current.shards):,} shards committed, {num_images:,} images x "
        f"{len(opened.run.slots)} slots = {rows:,} caption rows: "
        + (f"{len(broken)} violations" if broken else "each exactly once")
    )
    sys.exit(1 if broken else 3 if quarantined else 0)


def _check(opened: Output, shard: Shard) -> tuple[int, list[Violation]]:
    try:
        keys = list(_keys(opened, shard))
    except ShardUnreadable as err:
        return 0, [Violation(shard.path, ViolationKind.UNREADABLE, f"the source, not the output: {err}")]
    return len(keys), verify_shard(opened.store, opened.run, shard, len(keys), keys)


def _keys(opened: Output, shard: Shard) -> Iterator[str]:
    with open_shard(shard, opened.source, opened.max_bytes) as rows:
        for row in rows.rows(None):
            yield row.key
