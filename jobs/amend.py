"""`joyfleet amend OUTPUT EDITS`: puts texts that people wrote into committed captions, and keeps the model's beside."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import click

from jobs.edits_file import read_edits
from jobs.output import Output, open_output
from pipeline.errors import ConfigError
from pipeline.ledger.edits import Edit, Mistake, apply_edits, find_mistakes
from pipeline.quality import canonical_json
from pipeline.quality.edited_text import edited_text_mistake
from schemas.shard import Shard

THREADS = 8
"""Shards that are read or replaced at the same time: a file is a few MB, and most of the time is the store's."""

SHOWN = 20
"""Mistakes in a message."""

T = TypeVar("T")


@click.command()
@click.argument("output")
@click.argument("edits_file", type=click.Path())
def amend(output: str, edits_file: str) -> None:
    """Replace or reject captions of OUTPUT by the edits in EDITS_FILE, CSV or Parquet.

    Its columns are shard, row, slot, caption, editor, and optionally status: ok (the default) or rejected. If one edit
    is wrong, none is applied. The text of the model stays in the column model_caption or rejected_text. The same edits
    once more change nothing, so repeat a command that was killed.
    """
    edits, mistakes = read_edits(edits_file)
    opened = open_output(output)
    edits, wrong = _checked_json(edits, opened.schemas)
    by_shard, unknown = _by_shard(opened, edits)
    mistakes += wrong + unknown
    for shard_mistakes in _each(
        lambda shard: find_mistakes(opened.store, opened.run, shard, by_shard[shard]), by_shard
    ):
        mistakes += shard_mistakes
    if mistakes:
        raise ConfigError(_listed(edits_file, mistakes))
    time = datetime.now(UTC).isoformat(timespec="seconds")
    changed = sum(_each(lambda shard: apply_edits(opened.store, opened.run, shard, by_shard[shard], time), by_shard))
    click.echo(
        f"{len(edits):,} edits in {len(by_shard):,} shards: {changed:,} rows changed, "
        f"{len(edits) - changed:,} were so already"
    )


def _checked_json(edits: Sequence[Edit], schemas: Mapping[str, str]) -> tuple[list[Edit], list[Mistake]]:
    """Return the edits with JSON captions in the form in which they are stored, and what is wrong with the others."""
    checked: list[Edit] = []
    mistakes: list[Mistake] = []
    for edit in edits:
        schema = schemas.get(edit.slot)
        if schema is None or edit.caption is None:
            checked.append(edit)
            continue
        mistake = edited_text_mistake(edit.caption, schema)
        if mistake is None:
            checked.append(replace(edit, caption=canonical_json(edit.caption, schema)))
        else:
            mistakes.append(Mistake(edit.line, f"slot {edit.slot}: {mistake}"))
    return checked, mistakes


def _each(work: Callable[[Shard], T], shards: Iterable[Shard]) -> list[T]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, shards))


def _by_shard(opened: Output, edits: Sequence[Edit]) -> tuple[Mapping[Shard, Sequence[Edit]], list[Mistake]]:
    known: dict[Shard, list[Edit]] = {}
    unknown: list[Mistake] = []
    for edit in edits:
        shard = opened.plan.shards.get(edit.shard)
        if shard is None:
            example = next(iter(opened.plan.shards))
            message = f"shard {edit.shard!r}: not in the plan of {opened.store.url}, whose shards are such as {example}"
            unknown.append(Mistake(edit.line, message))
        else:
            known.setdefault(shard, []).append(edit)
    return known, unknown


def _listed(edits_file: str, mistakes: Sequence[Mistake]) -> str:
    ordered = sorted(mistakes, key=lambda mistake: mistake.line)
    lines = [f"line {mistake.line}: {mistake.message}" for mistake in ordered[:SHOWN]]
    more = [f"... and {len(ordered) - SHOWN} more"] if len(ordered) > SHOWN else []
    listed = "\n  ".join([*lines, *more])
    return f"{edits_file}: {len(ordered)} edits are wrong, and no row was changed:\n  {listed}"
