"""`joyfleet caption job.yaml`: the main job, from a YAML file to committed Parquet."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from jobs.logs import new_log, redirect_output
from jobs.progress_line import ProgressLine
from jobs.signals import SIGNALS
from jobs.summary import print_summary
from jobs.terminal import echo, printable
from pipeline.config import load_job
from pipeline.errors import PipelineError
from pipeline.flow.ray_env import prepare_ray_env

if TYPE_CHECKING:
    from pipeline.flow.prepared_job import PreparedJob

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the file, such as sampling.temperature=0.4; stronger than the environment.",
)


PLANNING = "stopped while planning; nothing was asked of a model yet; run the same command again to go on"
"""What a signal ends a run with before there is anything to drain."""


@click.command()
@click.argument("job_file", type=click.Path())
@set_option
def caption(job_file: str, overrides: Sequence[str]) -> None:
    """Caption the images of JOB_FILE's source into its output; run it again to go on where it stopped."""
    SIGNALS.end_at_once(PLANNING)
    job = load_job(job_file, overrides)
    prepare_ray_env(job.cluster)
    # Ray reads its environment when it is imported, so not before the lines above.
    from pipeline.flow.prepared_job import prepare_job  # noqa: PLC0415

    import_ahead()
    run_prepared(prepare_job(job))


def import_ahead() -> None:
    """Begin to import Ray, more than a second of work, while the listings of a large job wait for the store.

    To be called when all else is imported: two threads on one circle of imports would see half a module.
    """
    # requests ignores this warning itself, until another thread that leaves `warnings.catch_warnings` undoes it.
    warnings.filterwarnings("ignore", "SOCKS support in urllib3 requires")
    # No daemon: a process that ends in the middle of loading Ray's library may crash.
    threading.Thread(target=import_module, args=("pipeline.flow.driver",)).start()


def run_prepared(prepared: PreparedJob) -> None:
    """Run what is prepared, with a progress line and a summary; ends the process unless all is done."""
    from pipeline.flow.driver import RunResult, run_job  # noqa: PLC0415 - as above

    for remark in prepared.remarks:
        echo(f"joyfleet: note: {remark}", err=True)
    outcome = RunResult.of(prepared)
    log_path = new_log()
    terminal = redirect_output(log_path, prepared.job.logs)
    asked = SIGNALS.drain()
    error = None
    try:
        with ProgressLine(terminal.err) as line:
            run_job(prepared, outcome, line.show, asked)
    except PipelineError as err:
        error = err
    print_summary(terminal.out, prepared, outcome, log_path)
    if error is not None:
        terminal.err.write(f"joyfleet: {printable(error)}\n")
        sys.exit(error.exit_code)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)
