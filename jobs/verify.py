"""`joyfleet verify OUTPUT`: proves from the source that each image was captioned exactly once."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from jobs.output import Output, open_output, source_option
from jobs.terminal import echo
from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.ledger.verification import ShardVerdict, SourceImage, Violation, ViolationKind, verify_shard, verify_tree
from pipeline.readers import open_shard
from schemas.shard import Shard

THREADS = 8
"""Shards that are checked at the same time: most of the time is spent waiting for storage."""


@click.command()
@click.argument("output")
@source_option
def verify(output: str, sources: Sequence[str]) -> None:
    """Check that every source row of OUTPUT's plan has each slot exactly once, and report every violation.

    Keys and hashes of the images are compared with the source, captions with the digest of their commit.
    Exit code 0: proven. 1: a violation. 3: proven, but shards are in quarantine.
    """
    opened = open_output(output, sources)
    # The plan's URLs are those of the first run. The source may have moved, but must not have changed.
    current = opened.listed_plan()
    verdict = verify_tree(opened.store, current)
    committed = remaining(opened.store, current).committed
    shards = [shard for shard in current.shards.values() if shard.path in committed]
    quarantined = [violation for violation in verdict.violations if violation.kind is ViolationKind.QUARANTINED]
    broken = [violation for violation in verdict.violations if violation.kind is not ViolationKind.QUARANTINED]
    num_images = num_without_digest = num_edited = 0
    source = opened.source
    with ThreadPoolExecutor(THREADS) as pool:
        for images, shard_verdict in pool.map(lambda shard: _check(opened, source, shard), shards):
            num_images += images
            num_without_digest += not shard_verdict.has_digest
            num_edited += shard_verdict.num_edited
            broken += shard_verdict.violations
    for violation in [*broken, *quarantined]:
        echo(f"{violation.kind}: {violation.shard}: {violation.detail}")
    for remark in [*verdict.remarks, *_undigested(num_without_digest, len(shards)), *_edited(num_edited)]:
        echo(f"note: {remark}")
    rows = num_images * len(opened.run.slots)
    click.echo(
        f"{len(shards):,} of {len(current.shards):,} shards committed, {num_images:,} images x "
        f"{len(opened.run.slots)} slots = {rows:,} caption rows{_of_generations(current)}: "
        + (f"{len(broken)} violations" if broken else "each exactly once")
    )
    sys.exit(1 if broken else 3 if quarantined else 0)


def _of_generations(plan: Plan) -> str:
    number = len(plan.generations)
    return f", {number} generations of the plan" if number > 1 else ""


def _edited(num_rows: int) -> list[str]:
    return [f"{num_rows:,} caption rows were edited by people"] if num_rows else []


def _undigested(num_without: int, num_shards: int) -> list[str]:
    if not num_without:
        return []
    return [
        f"{num_without:,} of {num_shards:,} files have no digest of their captions, because an earlier version "
        "wrote them: it cannot be checked whether their texts are those that were committed"
    ]


def _check(opened: Output, source: SourceConfig, shard: Shard) -> tuple[int, ShardVerdict]:
    try:
        images = list(_images(opened, source, shard))
    except ShardUnreadable as err:
        violation = Violation(shard.path, ViolationKind.UNREADABLE, f"the source cannot be read: {err}")
        return 0, ShardVerdict((violation,), True)
    return len(images), verify_shard(opened.store, opened.run, shard, len(images), images)


def _images(opened: Output, source: SourceConfig, shard: Shard) -> Iterator[SourceImage]:
    with open_shard(shard, source, opened.max_bytes) as rows:
        for row in rows.rows(None):
            yield SourceImage(row.key, None if row.data is None else hashlib.sha256(row.data).hexdigest())
