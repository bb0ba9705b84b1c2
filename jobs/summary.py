"""The summary that a run prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table

from jobs.progress_line import clock
from jobs.terminal import printable

if TYPE_CHECKING:
    from pipeline.flow.driver import RunResult
    from pipeline.flow.prepared_job import PreparedJob

SHOWN = 5
"""Shards that are listed by name."""


def print_summary(out: TextIO, prepared: PreparedJob, outcome: RunResult, log_path: Path) -> None:
    """Print the table, then the shards that need attention, then the paths of the logs."""
    console = Console(file=out, soft_wrap=True, highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(prepared, outcome):
        table.add_row(name, value)
    console.print(table)
    for shard, message in list(outcome.shards_quarantined.items())[:SHOWN]:
        console.print(printable(f"quarantined: {shard}: {message}"), markup=False)
    for left_out in outcome.left_out:
        console.print(printable(f"note: {left_out}"), markup=False)
    for shard in outcome.shards_lost[:SHOWN]:
        console.print(printable(f"committed by another run: {shard}"), markup=False)
    if len(outcome.shards_lost) > SHOWN:
        console.print(f"... and {len(outcome.shards_lost) - SHOWN} more; the log names each", markup=False)
    console.print(f"log: {log_path}", markup=False)
    if outcome.worker_logs:
        console.print(f"logs of Ray workers and vLLM: {outcome.worker_logs}", markup=False)


def _rows(prepared: PreparedJob, outcome: RunResult) -> list[tuple[str, str]]:
    done = outcome.shards_before + outcome.shards_committed + len(outcome.shards_lost)
    captions = sum(outcome.statuses.values())
    statuses = ", ".join(f"{rows:,} {status}" for status, rows in outcome.statuses.items())
    rate = f"{captions / outcome.seconds:.1f}/s over all" if outcome.seconds else "-"
    return [
        ("output", prepared.job.output),
        ("recipe", prepared.recipe.fingerprint),
        (
            "shards",
            f"{done:,} of {outcome.shards_planned:,} committed, {len(outcome.shards_quarantined)} in quarantine",
        ),
        ("this run", f"{outcome.shards_committed:,} shards, {outcome.images:,} images in {clock(outcome.seconds)}"),
        ("other runs", f"committed {len(outcome.shards_lost):,} of these shards meanwhile"),
        ("captioned", f"{outcome.images_captioned:,} images"),
        ("resumed", f"{outcome.images_resumed:,} images staged by earlier runs"),
        ("captions", f"{captions:,}: {statuses} ({rate})"),
    ]
