"""`joyfleet submit job.yaml --address URL`: runs the main job on a cluster and ends with its exit code."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.job_file import growth_options, read_job, refuse_part_that_follows, set_option
from jobs.signals import SIGNALS
from pipeline.errors import ConfigError, Interrupted
from pipeline.flow.ray_env import API_VARIABLE, prepare_ray_env
from pipeline.prompts import check_captions

if TYPE_CHECKING:
    from pipeline.flow.job_submission import JobEnd, JobServer, LogFollower


@click.command()
@click.argument("job_file", type=click.Path(path_type=Path))
@set_option
@growth_options
@click.option("--address", envvar=API_VARIABLE, required=True, help="The cluster's dashboard, http://HEAD:8265.")
@click.option(
    "--working-dir",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The folder that is sent to the cluster; JOB_FILE must be in it.",
)
@click.option(
    "--runtime-env",
    default="infra/runtime-env.yaml",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Ray's runtime environment: excludes and variables.",
)
@click.option("--attach", is_flag=True, help="Follow the running job of this output, if there is one.")
def submit(
    job_file: Path,
    overrides: Sequence[str],
    address: str,
    working_dir: Path,
    runtime_env: Path,
    **how: Any,  # noqa: ANN401 - attach, extend, every_s and part
) -> None:
    """Run `caption JOB_FILE` on the Ray cluster at --address, show its log, and end with its exit code.

    Ctrl-C asks whether to stop the job. Without a terminal it leaves the job running and ends with 4.
    """
    refuse_part_that_follows(how["every_s"], how["part"])
    job = read_job(str(job_file), overrides)
    check_captions(job)
    prepare_ray_env(job.cluster, job_server=address)
    logging.disable(logging.INFO)  # Ray's client logs each file that it excludes
    try:
        # Ray reads its environment when it is imported, so not before the line above.
        from pipeline.flow.job_submission import JobServer, LogFollower, make_submission  # noqa: PLC0415
    except ModuleNotFoundError as err:
        raise ConfigError(f"{err.name} is not installed; submitting needs pip install 'joyfleet[cluster]'") from err

    options = ["--extend"] if how["extend"] else []
    options += [f"--follow={how['every_s']:g}"] if how["every_s"] is not None else []
    options += [f"--part={how['part']}"] if how["part"] is not None else []
    submission = make_submission(job, job_file, overrides, working_dir, runtime_env, options)
    if how["part"] is not None:
        # Each part is a job of its own on the cluster; of one part there is one at a time.
        submission = replace(submission, output=f"{job.output} part {how['part'].number} of {how['part'].of}")
    server = JobServer.connect(address)
    running = server.running(submission.output) if how["attach"] else None
    name = running or server.send(submission)
    click.echo(f"joyfleet: job {name} on {address}", err=True)
    end = _follow(server, name, LogFollower(server, name, lambda text: click.echo(text, nl=False)))
    click.echo(f"joyfleet: job {name} {end.status}, exit code {end.exit_code}", err=True)
    if end.driver_code is None and end.message:
        click.echo(f"joyfleet: {end.message}", err=True)
    sys.exit(end.exit_code)


def _follow(server: JobServer, job: str, follower: LogFollower) -> JobEnd:
    SIGNALS.end_at_once(_still_running(job))
    SIGNALS.leave(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        try:
            return follower.follow()
        except KeyboardInterrupt:
            if _ask(job) == "stop":
                server.stop(job)


def _ask(job: str) -> str:
    """Ask the user what Ctrl-C means: `stop` or `follow`.

    Raises:
        Interrupted: the job is left running; also without a terminal, and at a second Ctrl-C.
    """
    answer = "leave"
    if sys.stdin.isatty():
        try:
            answer = click.prompt(
                f"\njoyfleet: {job} is still running; stop it, leave it running, or follow it",
                type=click.Choice(["stop", "leave", "follow"]),
                default="follow",
                err=True,
            )
        except click.Abort:
            click.echo(err=True)
    if answer == "leave":
        raise Interrupted(_still_running(job))
    return answer


def _still_running(job: str) -> str:
    return f"{job} is still running: the same command with --attach follows it, `ray job stop {job}` stops it"
