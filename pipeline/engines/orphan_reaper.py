"""Kills what a process started when that process dies without a word: nothing of a run outlives it.

A guard is a small process that waits on a pipe whose other end dies with its parent: the kernel tells it, at once and
whatever the clocks do, also of SIGKILL. Two things need one:

- vLLM's core is a process of its own and waits for requests for ever when its parent is killed (measured): on a GPU
  it would hold the memory that the next run needs.
- The processes of a Ray of the run's own. Its raylet and GCS die with the driver (PR_SET_PDEATHSIG), but workers and
  agents find out by timers: an agent needs a minute, and a worker whose wall clock was set back meanwhile was alive
  half an hour later.
"""

import inspect
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import psutil

T = TypeVar("T")

MARK = "_JOYFLEET_RUN"
"""Variable that identifies the processes of a run: all processes that a process starts inherit it. Variables that begin
with `JOYFLEET_` are keys of the config."""


def _start_ticks(pid: int | str) -> str:
    """When a process started, in clock ticks since boot; empty where there is no /proc, and for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


# Without site packages it takes 20 ms and 9 MB. A byte means that the engine was closed in good order. A process that
# has ended leaves its id to another one, which began at another tick since boot: that one is not killed.
_SCRIPT = f"""
import os, signal, sys
{inspect.getsource(_start_ticks)}
if not sys.stdin.buffer.read(1):
    for pid, _, ticks in (word.partition(":") for word in sys.argv[1:]):
        try:
            if _start_ticks(pid) == ticks:
                os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


# Linux alone has /proc. Twice without any, since a process may be starting another while they are read.
_MARKED_SCRIPT = """
import os, signal, sys, time
mark = sys.argv[1].encode()
def is_marked(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if mark not in file.read().split(b"\\0"):
                return False
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
sys.stdin.buffer.read()
none = 0
while none < 2:
    found = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if is_marked(pid)]
    none = 0 if found else none + 1
    for pid in found:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    time.sleep(0.1)
"""


class OrphanReaper:
    """Guards some processes until it is released."""

    def __init__(self, processes: set[str]) -> None:
        """Takes what `_descendants` returns."""
        self._process = _start(_SCRIPT, *sorted(processes))

    def release(self) -> None:
        """Stop guarding: the processes have ended, or are about to end."""
        self._process.communicate(b".")


class RunGuard:
    """Kills all that this process starts from now on, and what that starts, at the end or with this process."""

    def __init__(self) -> None:
        os.environ.pop(MARK, None)  # of an earlier guard: this one is not to bear a mark itself
        mark = uuid.uuid4().hex
        self._process = _start(_MARKED_SCRIPT, f"{MARK}={mark}") if Path("/proc/self/environ").exists() else None
        os.environ[MARK] = mark

    def end(self) -> None:
        """Kill what is left, and return when nothing is."""
        os.environ.pop(MARK, None)
        if self._process is not None:
            self._process.communicate()


def _start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-S", "-c", script, *arguments]
    # In a session of its own, so that a signal to the parent's group does not end the guard first.
    return subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)


def start_with_reaper(start: Callable[[], T]) -> tuple[T, OrphanReaper]:
    """Call `start` and guard every child process that it leaves running."""
    before = _descendants()
    started = start()
    return started, OrphanReaper(_descendants() - before)


def exit_with_children(code: int) -> NoReturn:
    """End this process at once, and first all that it started: what is left of an engine would hold its GPU."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(code)


def _descendants() -> set[str]:
    """The processes that come from this one, each as `PID:TICKS` (see `_start_ticks`)."""
    return {f"{process.pid}:{_start_ticks(process.pid)}" for process in psutil.Process().children(recursive=True)}
