"""The summary that a run prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table

from jobs.progress_line import clock
from jobs.terminal import printable

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob
    from pipeline.flow.run_result import RunResult

SHOWN = 5
"""Shards that are listed by name."""


def print_summary(out: TextIO, prepared: PreparedJob, result: RunResult, log_path: Path) -> None:
    """Print the table, then the shards that need attention, then the paths of the logs."""
    console = Console(file=out, soft_wrap=True, highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _rows(prepared, result):
        table.add_row(name, value)
    console.print(table)
    for shard, message in list(result.shards_quarantined.items())[:SHOWN]:
        console.print(printable(f"quarantined: {shard}: {message}"), markup=False)
    for left_out in result.left_out:
        console.print(printable(f"note: {left_out}"), markup=False)
    for shard in result.shards_lost[:SHOWN]:
        console.print(printable(f"committed by another run: {shard}"), markup=False)
    if len(result.shards_lost) > SHOWN:
        console.print(f"... and {len(result.shards_lost) - SHOWN} more; the log names each", markup=False)
    console.print(f"log: {log_path}", markup=False)
    if result.worker_logs:
        console.print(f"logs of Ray workers and vLLM: {result.worker_logs}", markup=False)


def _rows(prepared: PreparedJob, result: RunResult) -> list[tuple[str, str]]:
    done = result.shards_before + result.shards_committed + len(result.shards_lost)
    captions = sum(result.statuses.values())
    statuses = ", ".join(f"{rows:,} {status}" for status, rows in result.statuses.items())
    rate = f"{captions / result.seconds:.1f}/s over all" if result.seconds else "-"
    return [
        ("output", prepared.job.output),
        ("recipe", prepared.recipe.fingerprint),
        (
            "shards",
            f"{done:,} of {result.shards_planned:,} committed, {len(result.shards_quarantined)} in quarantine",
        ),
        ("this run", f"{result.shards_committed:,} shards, {result.images:,} images in {clock(result.seconds)}"),
        ("other runs", f"committed {len(result.shards_lost):,} of these shards meanwhile"),
        ("captioned", f"{result.images_captioned:,} images"),
        ("resumed", f"{result.images_resumed:,} images staged by earlier runs"),
        ("captions", f"{captions:,}: {statuses} ({rate})"),
    ]
