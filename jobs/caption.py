"""`joyfleet caption job.yaml`: the main job, from a YAML file to committed Parquet files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobs.job_file import growth_options, read_job, refuse_part_that_follows, set_option
from jobs.logs import Terminal, new_log, redirect_output
from jobs.progress_line import ProgressLine
from jobs.ray_ahead import RayAhead
from jobs.signals import SIGNALS
from jobs.summary import print_summary
from jobs.terminal import echo, printable
from pipeline.errors import PipelineError
from pipeline.flow.ray_env import prepare_ray_env

if TYPE_CHECKING:
    from pipeline.flow.cluster import ClusterStart
    from pipeline.flow.prepared_job import PreparedJob
    from pipeline.ledger.parts_record import Part


PLANNING = "stopped while planning; no request was sent to a model yet; run the same command again to resume"
"""The message when a signal ends a run before anything is in flight."""


@click.command()
@click.argument("job_file", type=click.Path())
@growth_options
@set_option
def caption(job_file: str, overrides: Sequence[str], *, extend: bool, every_s: float | None, part: Part | None) -> None:
    """Caption the images of JOB_FILE's source into its output; the same command resumes a run that stopped."""
    SIGNALS.end_at_once(PLANNING)
    refuse_part_that_follows(every_s, part)
    job = read_job(job_file, overrides)
    prepare_ray_env(job.cluster)
    # Ray reads its environment when it is imported, so not before the lines above.
    from pipeline.flow.extension import Extension  # noqa: PLC0415
    from pipeline.flow.prepared_job import prepare_job  # noqa: PLC0415

    if every_s is not None:
        from jobs.follow import follow  # noqa: PLC0415 - as above

        follow(job, every_s)
    ahead = RayAhead(job)
    prepared = ahead.plan(lambda work: prepare_job(job, Extension() if extend else None, part, work))
    run_prepared(prepared, ahead.started())


def run_prepared(prepared: PreparedJob, start: ClusterStart | None = None) -> None:
    """Run a prepared job with a progress line and a summary; end the process with its exit code unless it is 0.

    Args:
        prepared: the job.
        start: of Ray, if it has begun.
    """
    try:
        exit_code, _ = run_with_summary(prepared, start)
    finally:
        if start is not None and not start.has_ended:
            SIGNALS.end_without_exit_handlers()  # it may be starting; the guard of its processes kills them
    if exit_code:
        sys.exit(exit_code)


def run_with_summary(prepared: PreparedJob, start: ClusterStart | None = None) -> tuple[int, Terminal]:
    """Run a prepared job with a progress line and a summary; return its exit code, and the terminal.

    From now on the process writes to the run's log, and to the terminal only through what is returned.
    """
    from pipeline.flow.driver import run_job  # noqa: PLC0415 - as above
    from pipeline.flow.run_result import RunResult  # noqa: PLC0415 - as above

    print_remarks(prepared)
    result = RunResult.of(prepared)
    log_path = new_log()
    terminal = redirect_output(log_path, prepared.job.logs)
    drain = SIGNALS.drain()
    error = None
    try:
        with ProgressLine(terminal.err) as line:
            run_job(prepared, result, line.show, drain, start)
    except PipelineError as err:
        error = err
    print_summary(terminal.out, prepared, result, log_path)
    if error is not None:
        terminal.err.write(f"joyfleet: {printable(error)}\n")
        return error.exit_code, terminal
    return result.exit_code, terminal


def print_remarks(prepared: PreparedJob) -> None:
    """Print what the user should know before the run starts."""
    for remark in prepared.remarks:
        echo(f"joyfleet: note: {remark}", err=True)
