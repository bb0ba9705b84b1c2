"""The summary that a run prints at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from jobs.progress_line import clock
from jobs.terminal import echo, print_table
from schemas.status import Status

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob
    from pipeline.flow.run_result import RunResult

SHOWN = 5
"""Shards that are listed by name."""


def print_summary(out: TextIO, prepared: PreparedJob, result: RunResult, log_path: Path) -> None:
    """Print the table, then the shards that need attention, then the paths of the logs."""
    print_table(out, _rows(prepared, result))
    for shard, message in list(result.shards_quarantined.items())[:SHOWN]:
        echo(f"quarantined: {shard}: {message}", file=out)
    for condition, num_rows in result.skipped_by_most():
        echo(f"skipped: {num_rows:,} rows by {condition}", file=out)
    for left_out in result.left_out:
        echo(f"note: {left_out}", file=out)
    for shard in result.shards_lost[:SHOWN]:
        echo(f"committed by another run: {shard}", file=out)
    if len(result.shards_lost) > SHOWN:
        echo(f"... and {len(result.shards_lost) - SHOWN} more; the log names each", file=out)
    echo(f"log: {log_path}", file=out)
    if result.worker_logs:
        echo(f"logs of Ray workers and vLLM: {result.worker_logs}", file=out)


def _rows(prepared: PreparedJob, result: RunResult) -> list[tuple[str, str]]:
    done = result.shards_before + result.shards_committed + len(result.shards_lost)
    captions = sum(result.statuses.values()) - result.statuses.get(Status.SKIPPED, 0)
    statuses = ", ".join(f"{rows:,} {status}" for status, rows in result.statuses.items())
    rate = f"{captions / result.seconds:.1f}/s over all" if result.seconds else "-"
    taken_over = f"{result.captions_taken_over:,} captions of {', '.join(prepared.job.reuse)}"
    return [
        ("output", prepared.job.output),
        ("recipe", prepared.recipe.fingerprint),
        ("shards", f"{done:,} of {result.shards_planned:,} committed, {len(result.shards_quarantined)} in quarantine"),
        ("this run", f"{result.shards_committed:,} shards, {result.images:,} images in {clock(result.seconds)}"),
        ("other runs", f"committed {len(result.shards_lost):,} of these shards during this run"),
        ("captioned", f"{result.images_captioned:,} images"),
        ("resumed", f"{result.images_resumed:,} images staged by earlier runs"),
        *([("taken over", taken_over)] if prepared.job.reuse else []),
        ("captions", f"{captions:,}: {statuses} ({rate})"),
    ]
