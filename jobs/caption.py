"""`joyfleet caption job.yaml`: the main job, from a YAML file to committed Parquet."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from jobs.logs import new_log, take_terminal
from jobs.progress import ProgressLine
from jobs.summary import print_summary
from pipeline.config import load_job
from pipeline.errors import PipelineError
from pipeline.flow.isolate import isolate_ray

if TYPE_CHECKING:
    from pipeline.flow.job import PreparedJob

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the file, such as sampling.temperature=0.4; stronger than the environment.",
)


@click.command()
@click.argument("job_file", type=click.Path())
@set_option
def caption(job_file: str, overrides: Sequence[str]) -> None:
    """Caption the images of JOB_FILE's source into its output; run it again to go on where it stopped."""
    job = load_job(job_file, overrides)
    isolate_ray(job.cluster.address)
    # Ray reads its environment when it is imported, so not before the line above.
    from pipeline.flow.job import prepare_job  # noqa: PLC0415

    run_prepared(prepare_job(job))


def run_prepared(prepared: PreparedJob) -> None:
    """Run what is prepared, with a progress line and a summary; ends the process unless all is done."""
    from pipeline.flow.run import Outcome, run_job  # noqa: PLC0415 - as above

    for remark in prepared.remarks:
        click.echo(f"joyfleet: note: {remark}", err=True)
    outcome = Outcome.of(prepared)
    log_path = new_log()
    terminal = take_terminal(log_path, prepared.job.logs)
    error = None
    try:
        with stop_on_signals() as stop, ProgressLine(terminal.err) as line:
            run_job(prepared, outcome, line.show, stop)
    except PipelineError as err:
        error = err
    print_summary(terminal.out, prepared, outcome, log_path)
    if error is not None:
        terminal.err.write(f"joyfleet: {error}\n")
        sys.exit(error.exit_code)
    if outcome.exit_code:
        sys.exit(outcome.exit_code)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or SIGINT sets; a second one ends the process as usual."""
    stop = threading.Event()
    before: dict[int, signal.Handlers | int | None] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        stop.set()
        signal.signal(number, before[number])  # pyright: ignore[reportArgumentType] - what getsignal gave

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)  # pyright: ignore[reportArgumentType] - see above
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - see above
