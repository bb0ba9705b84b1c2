"""Runs checks in a process of their own, so that one that hangs or crashes costs itself alone."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import IO

from pipeline.config import without_secrets
from pipeline.doctor.check import Check, Context, Finding, Result, failed, warning

START_S = 120
"""Added to the first check of a process, which imports the others' libraries; a busy machine may need a minute."""

AFTER_FAILURE = "not run, since another check of this node failed"

SHOWN_LINES = 5
"""Of what a crashed process wrote."""


def examine(
    checks: Sequence[Check], context: Context, node: str, environment: Mapping[str, str] | None = None
) -> list[Result]:
    """Run checks one after the other; a check that hangs, crashes or raises has failed, and the others go on.

    Args:
        checks: entries of the table `pipeline.doctor.checks`.
        context: of this node.
        node: name of this node, for the results.
        environment: of the processes; by default that of this one.
    """
    results: list[Result] = []
    rest = list(checks)
    while rest:
        with _child(rest, context, environment or os.environ) as child:
            while rest:
                check = rest.pop(0)
                first = check.timeout_s + (START_S if child.is_new else 0)
                child.is_new = False
                finding = _next(child, first)
                if finding is not None:
                    results.append(Result(node=node, check=check.name, finding=_printable(finding)))
                    continue
                results.append(Result(node=node, check=check.name, finding=_printable(_ended(child, check))))
                break
    return results


def not_run(checks: Sequence[Check], node: str, why: str = AFTER_FAILURE) -> Iterator[Result]:
    """Yield a warning for each check that was left out."""
    for check in checks:
        finding = warning(why, "run the doctor again when that has changed")
        yield Result(node=node, check=check.name, finding=finding)


@dataclass(slots=True)
class _Child:
    """A process that runs checks in order and sends a finding after each."""

    process: subprocess.Popen[bytes]
    connection: Connection
    stderr: IO[bytes]
    is_new: bool = True


@contextmanager
def _child(checks: Sequence[Check], context: Context, environment: Mapping[str, str]) -> Iterator[_Child]:
    ours, theirs = Pipe()
    words = [sys.executable, "-m", "pipeline.doctor.child", str(theirs.fileno()), *(check.name for check in checks)]
    env = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryFile() as stderr, ours:
        # In a session of its own: an engine that it started is killed with it.
        process = subprocess.Popen(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        try:
            with suppress(ConnectionError):  # it died at once: `_next` finds out
                ours.send(context)
            yield _Child(process, ours, stderr)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _next(child: _Child, timeout_s: float) -> Finding | None:
    """Return the finding of the current check; None if the process died, or was too slow."""
    try:
        return child.connection.recv() if child.connection.poll(timeout_s) else None
    except (EOFError, ConnectionResetError):
        child.process.wait()
        return None


def _ended(child: _Child, check: Check) -> Finding:
    code = child.process.poll()
    if code is None:
        return failed(
            f"did not end within {check.timeout_s:g} s",
            "look for what does not answer: a file system, a store, the driver (nvidia-smi)",
        )
    child.stderr.seek(0)
    lines = child.stderr.read().decode(errors="replace").strip().splitlines()[-SHOWN_LINES:]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return failed(
        f"the check crashed ({how}): {' | '.join(lines) or 'it wrote nothing'}",
        "what it uses is broken: install JoyFleet again on this node (make setup)",
    )


def _printable(finding: Finding) -> Finding:
    return Finding(
        level=finding.level,
        message=without_secrets(finding.message),
        remedy=without_secrets(finding.remedy),
        survey=finding.survey,
    )
