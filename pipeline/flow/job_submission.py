"""Submits a job to the job server of a Ray cluster, follows its log, and stops it; at most one job per output.

Ray accepts a submission id only once. An id of the output's name and a number is therefore a lock: of two simultaneous
submissions Ray refuses one. `JobEnd.exit_code` is the driver's own exit code; Ray's command line ends with 1 for every
failed job and with 0 for a stopped one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.config import ENV_PREFIX, JobConfig
from pipeline.errors import ConfigError, Interrupted, PipelineError
from pipeline.flow.ray_env import ADDRESS_VARIABLE, API_VARIABLE

OUTPUT_KEY = "joyfleet.output"
"""Metadata key of a submitted job that holds its output."""

POLL_S = 1.0
SERVER_TIMEOUT_S = 60.0
"""How long the job server may not answer before following ends, such as while a port-forward is opened again."""

SHUTDOWN_S = 30
"""Time after the drain timeout for the shutdown of Ray's workers and threads, and for the summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to submit."""

    output: str
    """URL; with `--part` also the part: of each there is one job at a time."""
    entrypoint: str
    """Command line for the head's shell, which runs it in the unpacked working directory."""
    runtime_env: Mapping[str, Any]


def make_submission(
    job: JobConfig,
    job_file: Path,
    overrides: Sequence[str],
    working_dir: Path,
    runtime_env: Path,
    options: Sequence[str] = (),
) -> Submission:
    """Return the submission of `joyfleet caption`: folder, command, and this environment's JOYFLEET_ variables.

    Raises:
        ConfigError: a path would have another meaning on the cluster.
    """
    if "://" not in job.output and not Path(job.output).is_absolute():
        raise ConfigError(
            f"output: found {job.output!r}, a relative path, which on a cluster is in the job's temporary working "
            "directory; allowed: s3://, gs://, or the absolute path of a disk that all nodes share"
        )
    try:
        relative_path = job_file.resolve().relative_to(working_dir.resolve())
    except ValueError:
        raise ConfigError(
            f"{job_file}: is not in the working directory {working_dir}, and only that folder is sent to the cluster; "
            "move the file there or give another --working-dir"
        ) from None
    words = ["python", "-m", "jobs", "caption", relative_path.as_posix(), *options]
    for override in overrides:
        words += ["--set", override]
    base = _read_runtime_env(runtime_env)
    variables = {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}
    stop_wait = {"RAY_JOB_STOP_WAIT_TIME_S": str(int(job.cluster.drain_timeout_s) + SHUTDOWN_S)}
    return Submission(
        output=job.output,
        entrypoint=shlex.join(words),
        runtime_env={
            **base,
            "working_dir": str(working_dir),
            "env_vars": {**base.get("env_vars", {}), **variables, **stop_wait},
        },
    )


def _read_runtime_env(path: Path) -> dict[str, Any]:
    try:
        runtime_env = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as err:
        raise ConfigError(f"{path}: cannot be read as YAML ({err}); give a file with Ray's runtime_env") from err
    if not isinstance(runtime_env, dict):
        raise ConfigError(f"{path}: found {type(runtime_env).__name__}; allowed: a mapping, Ray's runtime_env")
    if "working_dir" in runtime_env:
        raise ConfigError(f"{path}: working_dir is not allowed in this file; remove it and give --working-dir")
    return runtime_env


@contextmanager
def _one_line_errors(address: str) -> Iterator[None]:
    """Raise errors of Ray's client as a PipelineError with a message of one line."""
    try:
        yield
    except (OSError, aiohttp.ClientError) as err:
        raise PipelineError(
            f"{address}: no job server answers ({type(err).__name__}); give the address of the dashboard on the "
            "cluster's head (port 8265 by default), or of a port-forward to it"
        ) from err
    except AuthenticationError as err:
        raise PipelineError(f"{address}: requires a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN") from err
    except (RuntimeError, ValueError) as err:
        # The error of a failed request contains the server's traceback; its last line is the message.
        raise PipelineError(f"{address}: {str(err).strip().splitlines()[-1]}") from err


@dataclass(frozen=True, slots=True)
class JobServer:
    """A connection to the job server at an address."""

    address: str
    client: JobSubmissionClient

    @classmethod
    def connect(cls, address: str) -> JobServer:
        """Connect to a job server.

        Raises:
            ConfigError: the address is not an http address.
            PipelineError: no server answers, or its version of Ray is incompatible.
        """
        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"--address {address}: not the address of a Ray dashboard; allowed: http:// or https://")
        # For Ray both variables precede the argument.
        for name in (API_VARIABLE, ADDRESS_VARIABLE):
            os.environ.pop(name, None)
        with _one_line_errors(address):
            return cls(address, JobSubmissionClient(address))

    def running(self, output: str) -> str | None:
        """Return the id of the running or pending job of `output`, if there is one."""
        return next((job.submission_id for job in self._jobs(output) if not job.status.is_terminal()), None)

    def _jobs(self, output: str) -> list[JobDetails]:
        with _one_line_errors(self.address):
            jobs = self.client.list_jobs()
        return [job for job in jobs if (job.metadata or {}).get(OUTPUT_KEY) == output]

    def send(self, submission: Submission) -> str:
        """Upload the working directory and start the job; return its id.

        Raises:
            PipelineError: this output has a running job, or the server refused the job.
        """
        running = self.running(submission.output)
        if running is not None:
            raise _already_running(submission.output, running)
        job_id = next_id(submission.output, [job.submission_id or "" for job in self._jobs(submission.output)])
        try:
            with _one_line_errors(self.address):
                return self.client.submit_job(
                    entrypoint=submission.entrypoint,
                    runtime_env=dict(submission.runtime_env),
                    metadata={OUTPUT_KEY: submission.output},
                    submission_id=job_id,
                )
        except PipelineError as err:
            if self.running(submission.output) == job_id:
                raise _already_running(submission.output, job_id) from err
            raise

    def stop(self, job: str) -> None:
        """Request a stop: Ray sends SIGTERM to the driver, which drains."""
        with _one_line_errors(self.address):
            self.client.stop_job(job)


def _already_running(output: str, job: str) -> PipelineError:
    return PipelineError(
        f"{output}: job {job} is already submitted for it; follow it with --attach, or stop it with "
        f"`ray job stop {job}`"
    )


def next_id(output: str, used: Sequence[str]) -> str:
    """Return the next unused id of an output: its name, a digest of its URL, and a number."""
    name = re.sub(r"[^a-z0-9]+", "-", output.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")[:30]
    stem = "-".join(filter(None, ("joyfleet", name, hashlib.sha256(output.encode()).hexdigest()[:8])))
    matches = [re.fullmatch(re.escape(stem) + r"-(\d+)", job_id) for job_id in used]
    return f"{stem}-{max((int(match[1]) for match in matches if match), default=0) + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ended."""

    status: str
    """SUCCEEDED, FAILED or STOPPED."""
    driver_code: int | None
    """None if no driver ran to its end: its environment could not be created, or it was stopped."""
    message: str

    @property
    def exit_code(self) -> int:
        """The driver's exit code; for a stopped job, whose code Ray does not keep, that of an interrupted run."""
        if self.status == JobStatus.STOPPED:
            return Interrupted.exit_code
        if self.status == JobStatus.SUCCEEDED:
            return 0
        if self.driver_code is None:
            return PipelineError.exit_code
        return self.driver_code if self.driver_code > 0 else 128 - self.driver_code  # a signal, as in a shell


class LogFollower:
    """Writes the log of a job as it grows. `follow` may be called again after an error: no text is written twice."""

    def __init__(self, server: JobServer, job: str, write: Callable[[str], None]) -> None:
        self._server = server
        self._job = job
        self._write = write
        self._num_written = 0

    def follow(self) -> JobEnd:
        """Write the log until the job has ended; return how it ended.

        Raises:
            PipelineError: the job server did not answer for a minute; the job may still run.
        """
        answered_at = time.monotonic()
        while True:
            try:
                end = self._follow()
                answered_at = time.monotonic()
            except PipelineError as err:
                end = None
                if time.monotonic() - answered_at > SERVER_TIMEOUT_S:
                    raise PipelineError(f"{err}; job {self._job} may still run: follow it with --attach") from err
            if end is not None:
                return end
            time.sleep(POLL_S)

    def _follow(self) -> JobEnd | None:
        client = self._server.client
        with _one_line_errors(self._server.address):
            asyncio.run(self._tail())
            # The server may end the log stream of a running job without an error, so the status decides.
            details = client.get_job_info(self._job)
            if not details.status.is_terminal():
                return None
            self._append(client.get_job_logs(self._job)[self._num_written :])
        return JobEnd(status=details.status, driver_code=details.driver_exit_code, message=details.message or "")

    async def _tail(self) -> None:
        skip = self._num_written  # each stream starts at the first line
        async for text in self._server.client.tail_job_logs(self._job):
            self._append(text[skip:])
            skip = max(0, skip - len(text))

    def _append(self, text: str) -> None:
        self._num_written += len(text)
        if text:
            self._write(text)
