"""`joyfleet verify OUTPUT`: proves from the source that each image was captioned exactly once."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import click

from jobs.output import Output, open_output, source_option
from jobs.terminal import echo
from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.images import IsolatedDecoder
from pipeline.ledger.limit_record import EndRows, read_limit
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.ledger.verification import ShardVerdict, SourceImage, Violation, ViolationKind, verify_shard, verify_tree
from pipeline.readers import open_shard
from pipeline.selection import JSON, Selection, selection_of
from pipeline.stages.row_screen import RowScreen
from schemas.shard import Shard
from schemas.status import Reason

THREADS = 8
"""Shards that are checked at the same time: most of the time is spent waiting for storage."""


@click.command()
@click.argument("output")
@source_option
def verify(output: str, sources: Sequence[str]) -> None:
    """Check that every source row of OUTPUT's plan has each slot exactly once, and report every violation.

    Keys and hashes of the images are compared with the source, captions with the digest of their commit. Skipped rows
    are those that the output's selection skips when it is evaluated again. The source of a chained job is its parent:
    keys and hashes are compared with the parent's rows, and no image is read.
    Exit code 0: proven. 1: a violation. 3: proven, but shards are in quarantine.
    """
    opened = open_output(output, sources)
    # The plan's URLs are those of the first run. The source may have moved, but must not have changed.
    current = opened.listed_plan(images=False)
    verdict = verify_tree(opened.store, current)
    committed = remaining(opened.store, current).committed
    shards = [shard for shard in current.shards.values() if shard.path in committed]
    quarantined = [violation for violation in verdict.violations if violation.kind is ViolationKind.QUARANTINED]
    broken = [violation for violation in verdict.violations if violation.kind is not ViolationKind.QUARANTINED]
    num_images = num_without_digest = num_edited = 0
    check = _Check.of(opened)
    with ThreadPoolExecutor(THREADS) as pool:
        for images, shard_verdict in pool.map(check.shard, shards):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """Checks shards of an output, with its selection evaluated again."""

    opened: Output
    source: SourceConfig
    images: ImagesConfig
    selection: Selection
    end_rows: EndRows

    @classmethod
    def of(cls, opened: Output) -> Self:
        source = opened.source.without_images()
        names = source.where.field_names() if source.where else ()
        return cls(
            opened=opened,
            source=source.with_tested_fields(names),
            images=opened.images,
            selection=selection_of(source),
            end_rows=(read_limit(opened.store) if source.limit else None) or {},
        )

    def shard(self, shard: Shard) -> tuple[int, ShardVerdict]:
        try:
            images = list(self._images(shard))
        except ShardUnreadable as err:
            violation = Violation(shard.path, ViolationKind.UNREADABLE, f"the source cannot be read: {err}")
            return 0, ShardVerdict((violation,), True)
        return len(images), verify_shard(self.opened.store, self.opened.run, shard, len(images), images)

    def _images(self, shard: Shard) -> Iterator[SourceImage]:
        selection = self.selection.up_to(self.end_rows.get(shard.path))
        answers: dict[int, tuple[Reason, str] | None] = {}
        with IsolatedDecoder() as decoder, open_shard(shard, self.source, self.images.max_bytes) as opened:
            screen = RowScreen(selection, self.images, shard.path, decoder.header)

            def ask(row: int, fields: Mapping[str, JSON], num_bytes: int | None) -> None:
                """Keep the answer, and have the image read in any case: its hash is checked."""
                answers[row] = screen.before_image(row, fields, num_bytes)

            for row in opened.rows(None, None if selection.selects_all else ask):
                skip, answer = screen.skip_of(row), answers.get(row.row)
                skipped_by = answer[1] if answer else skip.condition if skip else None
                sha256 = row.parent and row.parent.sha256
                sha256 = sha256 if row.data is None else hashlib.sha256(row.data).hexdigest()
                yield SourceImage(row.key, sha256, skipped_by)
