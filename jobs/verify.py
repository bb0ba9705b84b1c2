"""`joyfleet verify OUTPUT`: proves from the source that each image was captioned exactly once."""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import click

from jobs.output import Output, open_index_output, open_output, source_option
from jobs.terminal import echo
from jobs.verify_index import verify_index
from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import ShardUnreadable, StoreError
from pipeline.images import IsolatedDecoder
from pipeline.ledger import layout
from pipeline.ledger.duplicates_record import DuplicatesRecord, files_of, read_followers, read_records
from pipeline.ledger.limit_record import read_limit
from pipeline.ledger.plan_selection import in_force_since, selections_in_force
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.ledger.verification import ShardVerdict, SourceImage, Violation, ViolationKind, verify_shard, verify_tree
from pipeline.readers import SourceRow, open_shard
from pipeline.selection import JSON, Duplicates, Selection, Skip
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
    keys and hashes are compared with the parent's rows, and no image is read. Of an index, the rows are computed again
    from the source, all but the perceptual hashes, which are compared with the digest of their commit.
    Exit code 0: proven. 1: a violation. 3: proven, but shards are in quarantine.
    """
    index = open_index_output(output, sources)
    if index is not None:
        sys.exit(verify_index(index))
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
    selections: Mapping[str, Sequence[Selection]]
    """By planned shard: those in force since it was planned, the last one last."""
    duplicates: Sequence[DuplicatesRecord | None]
    """By generation of the plan."""

    @classmethod
    def of(cls, opened: Output) -> Self:
        source, plan = opened.source.without_images(), opened.plan
        end_rows = (read_limit(opened.store) if "limit" in opened.selection else None) or {}
        in_force = selections_in_force(opened.store, source, opened.selection, plan, end_rows)
        tested = [name for each in in_force if each.source.where for name in each.source.where.field_names()]
        selections = {
            shard.path: [each.of_shard(shard.path) for each in in_force_since(in_force, generation.number)]
            for generation in plan.generations
            for shard in generation.shards
        }
        return cls(
            opened=opened,
            source=source.with_tested_fields(tested),
            images=opened.images,
            selections=selections,
            duplicates=_duplicates(opened) if source.duplicates else (),
        )

    def shard(self, shard: Shard) -> tuple[int, ShardVerdict]:
        try:
            images = list(self._images(shard))
        except ShardUnreadable as err:
            violation = Violation(shard.path, ViolationKind.UNREADABLE, f"the source cannot be read: {err}")
            return 0, ShardVerdict((violation,), True)
        return len(images), verify_shard(self.opened.store, self.opened.run, shard, len(images), images)

    def _images(self, shard: Shard) -> Iterator[SourceImage]:
        duplicates = self._duplicates_of(shard.path)
        selections = [replace(selection, duplicates=duplicates) for selection in self.selections[shard.path]]
        answers: dict[int, list[Answer]] = {}
        with IsolatedDecoder() as decoder, open_shard(shard, self.source, self.images.max_bytes) as opened:
            screens = [RowScreen(selection, self.images, shard.path, decoder.header) for selection in selections]

            def ask(row: int, fields: Mapping[str, JSON], num_bytes: int | None) -> None:
                """Keep the answers, and have the image read in any case: its hash is checked."""
                answers[row] = [screen.before_image(row, fields, num_bytes) for screen in screens]

            selects_all = all(selection.selects_all for selection in selections)
            for row in opened.rows(None, None if selects_all else ask):
                known = answers.get(row.row, [None] * len(screens))
                *before, last = (_skip_of(*pair, row) for pair in zip(screens, known, strict=True))
                stated = row.parent and row.parent.sha256
                yield SourceImage(
                    key=row.key,
                    sha256=stated if row.data is None else hashlib.sha256(row.data).hexdigest(),
                    skipped_by=last and last.condition,
                    skipped_before=tuple(skip and skip.condition for skip in before),
                    duplicate_of=selections[-1].duplicate_of(row.row, last and last.reason),
                )

    def _duplicates_of(self, shard: str) -> Duplicates | None:
        config, files = self.source.duplicates, files_of(self.duplicates, shard)
        if config is None or files is None:
            return None
        leaders = read_followers(self.opened.store, files, shard)
        return Duplicates(by=config.by, leaders=leaders, num_images=files.num_images)


Answer = tuple[Reason, str] | None
"""Of a screen before the image is read."""


def _skip_of(screen: RowScreen, answer: Answer, row: SourceRow) -> Skip | None:
    return Skip(*answer) if answer else screen.skip_of(row)


def _duplicates(opened: Output) -> Sequence[DuplicatesRecord | None]:
    """Return the records of all generations.

    Raises:
        StoreError: one is missing or damaged.
    """
    records = read_records(opened.store, len(opened.plan.generations))
    if None in records:
        path = layout.duplicates_path(records.index(None))
        raise StoreError(
            f"{opened.store.url}/{path}: is missing, so it cannot be checked which rows are duplicates; run the job "
            "once more, or restore the file"
        )
    return records
