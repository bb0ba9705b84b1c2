"""What `joyfleet verify` does with an index: its rows are computed again from the source."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from jobs.output import Output
from jobs.terminal import echo
from pipeline.ledger.index_files import Index
from pipeline.ledger.index_verification import verify_index_shard, verify_index_tree
from pipeline.ledger.verification import Violation, ViolationKind
from pipeline.stages.index_rows import IndexSpec, UnreadableShard, index_shard
from schemas.index import Hash
from schemas.shard import Shard

THREADS = 8
"""Shards that are checked at the same time: most of the time is spent waiting for storage."""


def verify_index(opened: Output) -> int:
    """Print every violation and a summary; return the exit code of `verify`."""
    # The plan's URLs are those of the first run. The source may have moved, but must not have changed.
    plan = opened.listed_plan()
    index = Index(store=opened.store, fingerprint=opened.run.recipe, fields=opened.fields, plan=plan)
    # Pixels are not decoded again.
    spec = IndexSpec(source=opened.source, images=opened.images, hashes=index.hashes - {Hash.PHASH})
    listed = verify_index_tree(index)
    quarantined = [violation for violation in listed if violation.kind is ViolationKind.QUARANTINED]
    broken = [violation for violation in listed if violation.kind is not ViolationKind.QUARANTINED]
    indexed = index.indexed()
    shards = [shard for path, shard in plan.shards.items() if path in indexed]
    num_images = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for images, violations in pool.map(lambda shard: _check(index, spec, shard), shards):
            num_images += images
            broken += violations
    for violation in [*broken, *quarantined]:
        echo(f"{violation.kind}: {violation.shard}: {violation.detail}")
    click.echo(
        f"{len(shards):,} of {len(plan.shards):,} shards indexed, {num_images:,} images = {num_images:,} index rows: "
        + (f"{len(broken)} violations" if broken else "each exactly once")
    )
    return 1 if broken else 3 if quarantined else 0


def _check(index: Index, spec: IndexSpec, shard: Shard) -> tuple[int, Sequence[Violation]]:
    # In another process: an image may have killed its reader.
    read = index_shard(spec, shard, isolated=True)
    if isinstance(read, UnreadableShard):
        return 0, [Violation(shard.path, ViolationKind.UNREADABLE, f"the source cannot be read: {read.message}")]
    return read.table.num_rows, verify_index_shard(index, shard, read.table)
