"""`joyfleet caption job.yaml`: the main job, from a YAML file to committed Parquet files."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from jobs.job_file import growth_options, read_job, refuse_part_that_follows, set_option
from jobs.logs import Terminal, new_log, redirect_output
from jobs.progress_line import ProgressLine
from jobs.signals import SIGNALS
from jobs.summary import print_summary
from jobs.terminal import echo, printable
from pipeline.errors import PipelineError
from pipeline.flow.ray_env import prepare_ray_env

if TYPE_CHECKING:
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
    import_ahead()
    run_prepared(prepare_job(job, Extension() if extend else None, part))


def import_ahead() -> None:
    """Start importing Ray in a thread: it takes more than a second, in which a large job waits for listings.

    Call it when everything else is imported: two threads that import the same module may see it half initialised.
    """
    # requests ignores this warning itself, but another thread that leaves `warnings.catch_warnings` restores it.
    warnings.filterwarnings("ignore", "SOCKS support in urllib3 requires")
    # Not a daemon thread: a process that ends while it loads Ray's C++ library may crash.
    threading.Thread(target=import_module, args=("pipeline.flow.driver",)).start()


def run_prepared(prepared: PreparedJob) -> None:
    """Run a prepared job with a progress line and a summary; end the process with its exit code unless it is 0."""
    exit_code, _ = run_with_summary(prepared)
    if exit_code:
        sys.exit(exit_code)


def run_with_summary(prepared: PreparedJob) -> tuple[int, Terminal]:
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
            run_job(prepared, result, line.show, drain)
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
