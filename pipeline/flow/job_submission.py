"""A job on a cluster somewhere else, through the job server of its head: sent once an output, followed, stopped.

An id is used once by Ray, so an id made of the output and a number is a lock: of two submits at the same
moment, Ray refuses one. Where the plain command line of Ray turns every failure into 1 and a stopped job
into 0, `Ended.exit_code` is the driver's own.
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

OUTPUT = "joyfleet.output"
"""Key of a submitted job's metadata."""

POLL_S = 1.0
LOST_AFTER_S = 60.0
"""How long the job server may be silent before following ends: a port-forward that is opened again, a head's hiccup."""

RAY_END_S = 30
"""What Ray may take to end after the grace: its workers, its threads, the summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is sent."""

    output: str
    entrypoint: str
    """A line for the shell of the head, in the unpacked working directory."""
    runtime_env: Mapping[str, Any]


def make_submission(
    job: JobConfig, job_file: Path, overrides: Sequence[str], working_dir: Path, runtime_env: Path
) -> Submission:
    """Return what `joyfleet caption` on the cluster needs: folder, command, and this environment's JOYFLEET_ variables.

    Raises:
        ConfigError: a path cannot mean the same there as here.
    """
    if "://" not in job.output and not Path(job.output).is_absolute():
        raise ConfigError(
            f"output: found {job.output!r}, a relative path, which on a cluster lies in the job's working directory "
            "and goes with it; allowed: s3://, gs://, or the absolute path of a disk that all nodes share"
        )
    try:
        inside = job_file.resolve().relative_to(working_dir.resolve())
    except ValueError:
        raise ConfigError(
            f"{job_file}: is not in the working directory {working_dir}, which is all that the cluster gets; "
            "move it there or give another --working-dir"
        ) from None
    words = ["python", "-m", "jobs", "caption", inside.as_posix()]
    for override in overrides:
        words += ["--set", override]
    found = _read_runtime_env(runtime_env)
    mine = {name: value for name, value in os.environ.items() if name.startswith(ENV_PREFIX)}
    stop_wait = {"RAY_JOB_STOP_WAIT_TIME_S": str(int(job.cluster.drain_timeout_s) + RAY_END_S)}
    return Submission(
        output=job.output,
        entrypoint=shlex.join(words),
        runtime_env={
            **found,
            "working_dir": str(working_dir),
            "env_vars": {**found.get("env_vars", {}), **mine, **stop_wait},
        },
    )


def _read_runtime_env(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as err:
        raise ConfigError(f"{path}: cannot be read as YAML ({err}); give the runtime environment's file") from err
    if not isinstance(found, dict) or "working_dir" in found:
        raise ConfigError(f"{path}: must be a mapping of Ray's runtime_env without working_dir, which --working-dir is")
    return found


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line."""
    try:
        yield
    except (OSError, aiohttp.ClientError) as err:
        raise PipelineError(
            f"{address}: no job server answers ({type(err).__name__}); it is the dashboard of the cluster's head, "
            "port 8265 by default, often reached by a port-forward"
        ) from err
    except AuthenticationError as err:
        raise PipelineError(f"{address}: asks for a token, which RAY_AUTH_MODE=token and RAY_AUTH_TOKEN give") from err
    except (RuntimeError, ValueError) as err:
        # A failed request holds the server's whole traceback; its last line says what was wrong.
        raise PipelineError(f"{address}: {str(err).strip().splitlines()[-1]}") from err


@dataclass(frozen=True, slots=True)
class JobServer:
    """The job server at an address."""

    address: str
    client: JobSubmissionClient

    @classmethod
    def connect(cls, address: str) -> JobServer:
        """Find the server.

        Raises:
            ConfigError: not an http address.
            PipelineError: nobody answers there, or it is of a version that does not fit.
        """
        if not address.startswith(("http://", "https://")):
            raise ConfigError(f"--address {address}: is no http:// or https:// address of a Ray dashboard")
        # Ray lets both variables overrule what it is given.
        for name in (API_VARIABLE, ADDRESS_VARIABLE):
            os.environ.pop(name, None)
        with _told(address):
            return cls(address, JobSubmissionClient(address))

    def running(self, output: str) -> str | None:
        """Return the id of the job that works on `output` now."""
        alive = [job for job in self._jobs(output) if not job.status.is_terminal()]
        return alive[0].submission_id if alive else None

    def _jobs(self, output: str) -> list[JobDetails]:
        with _told(self.address):
            jobs = self.client.list_jobs()
        return [job for job in jobs if (job.metadata or {}).get(OUTPUT) == output]

    def send(self, submission: Submission) -> str:
        """Upload the working directory and start the job; return its id.

        Raises:
            PipelineError: a job works on this output already, or the server refused.
        """
        running = self.running(submission.output)
        if running is not None:
            raise _already(submission.output, running)
        wanted = next_id(submission.output, [job.submission_id or "" for job in self._jobs(submission.output)])
        try:
            with _told(self.address):
                return self.client.submit_job(
                    entrypoint=submission.entrypoint,
                    runtime_env=dict(submission.runtime_env),
                    metadata={OUTPUT: submission.output},
                    submission_id=wanted,
                )
        except PipelineError as err:
            if self.running(submission.output) == wanted:
                raise _already(submission.output, wanted) from err
            raise

    def stop(self, job: str) -> None:
        """Ask the job to stop: SIGTERM to the driver, which drains."""
        with _told(self.address):
            self.client.stop_job(job)


def _already(output: str, job: str) -> PipelineError:
    return PipelineError(
        f"{output}: job {job} works on it; follow it with --attach, or stop it with `ray job stop {job}`"
    )


def next_id(output: str, used: Sequence[str]) -> str:
    """Return an id that tells its output, with a number one above those that were used for it."""
    name = re.sub(r"[^a-z0-9]+", "-", output.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")[:30]
    stem = "-".join(filter(None, ("joyfleet", name, hashlib.sha256(output.encode()).hexdigest()[:8])))
    numbers = [int(one.removeprefix(f"{stem}-")) for one in used if re.fullmatch(re.escape(stem) + r"-\d+", one)]
    return f"{stem}-{max(numbers, default=0) + 1}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended."""

    status: str
    """SUCCEEDED, FAILED or STOPPED."""
    driver_code: int | None
    """None where no driver ran to its end: its environment could not be made, or it was stopped."""
    message: str

    @property
    def exit_code(self) -> int:
        """The driver's own; of a stopped job, whose code Ray does not keep, that of an interrupted run."""
        if self.status == JobStatus.STOPPED:
            return Interrupted.exit_code
        if self.status == JobStatus.SUCCEEDED:
            return 0
        if self.driver_code is None:
            return PipelineError.exit_code
        return self.driver_code if self.driver_code > 0 else 128 - self.driver_code  # as a shell tells of a signal


class Following:
    """Shows a job's log as it grows. It may be left by an exception and gone on with: nothing is shown twice."""

    def __init__(self, server: JobServer, job: str, write: Callable[[str], None]) -> None:
        self._server = server
        self._job = job
        self._write = write
        self._shown = 0

    def until_ended(self) -> Ended:
        """Return how the job ended.

        Raises:
            PipelineError: the job server was silent for a minute; the job may go on.
        """
        heard_at = time.monotonic()
        while True:
            try:
                ended = self._follow()
                heard_at = time.monotonic()
            except PipelineError as err:
                ended = None
                if time.monotonic() - heard_at > LOST_AFTER_S:
                    raise PipelineError(f"{err}; job {self._job} may go on: follow it with --attach") from err
            if ended is not None:
                return ended
            time.sleep(POLL_S)

    def _follow(self) -> Ended | None:
        client = self._server.client
        with _told(self._server.address):
            asyncio.run(self._tail())
            # The server may end its tail early and call it well: only the status tells.
            details = client.get_job_info(self._job)
            if not details.status.is_terminal():
                return None
            self._show(client.get_job_logs(self._job)[self._shown :])
        return Ended(status=details.status, driver_code=details.driver_exit_code, message=details.message or "")

    async def _tail(self) -> None:
        skip = self._shown  # each tail begins at the first line
        async for text in self._server.client.tail_job_logs(self._job):
            self._show(text[skip:])
            skip = max(0, skip - len(text))

    def _show(self, text: str) -> None:
        self._shown += len(text)
        if text:
            self._write(text)
