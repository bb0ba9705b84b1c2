"""A program with all processes that it starts: their CPU seconds, and their end.

Linux counts the CPU of a control group exactly, that of ended processes and of processes in other sessions included
(Ray's workers are children of its raylet). Where no group can be made, the children are sampled with psutil, which
misses what a process used between the last sample and its end, and processes that were handed to init.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

import psutil

from tests.benchmarks.report import Cpu

CGROUPS = Path("/sys/fs/cgroup")
KILL_TIMEOUT_S = 30.0
_numbers = count()

_JOIN = 'echo $$ > "$0" && exec "$@"'
"""A shell that joins the group before it becomes the program: no process of the program is outside."""

_SPIN = "import os\nwhile os.getppid() == {parent}:\n    sum(range(100_000))\n"
"""Computes until its parent ends."""


class ProcessTree:
    """A running program; use it as a context, which ends what is left of it."""

    def __init__(self, words: Sequence[str], output: IO[str], env: Mapping[str, str] | None = None) -> None:
        self._group = _new_group()
        join = ["/bin/sh", "-c", _JOIN, str(self._group / "cgroup.procs")] if self._group else []
        self.process = subprocess.Popen([*join, *words], stdout=output, stderr=output, env=env, start_new_session=True)
        self._sampled = Cpu(self.process.pid)

    @property
    def exact(self) -> bool:
        """Whether the CPU seconds are those of a control group."""
        return self._group is not None

    def cpu_s(self) -> float:
        """CPU seconds so far, of all processes, ended ones included."""
        return self._sampled.seconds() if self._group is None else _cpu_s(self._group)

    def kill(self) -> None:
        """Kill every process with SIGKILL and wait until none is left.

        Raises:
            RuntimeError: processes are left after KILL_TIMEOUT_S.
        """
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while pids := self._pids():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {sorted(pids)} are left {KILL_TIMEOUT_S:g} s after SIGKILL")
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        self.process.wait()

    def _pids(self) -> set[int]:
        if self._group is not None:
            return {int(pid) for pid in (self._group / "cgroup.procs").read_text().split()}
        if self.process.poll() is not None:
            return set()
        return {self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))}

    def __enter__(self) -> "ProcessTree":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._group is not None:
            self._group.rmdir()


def _new_group() -> Path | None:
    """Make a group: of cgroup v1's cpuacct, which changes no scheduling, or of v2 below this process's own."""
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), "/")
    for parent, marker in ((CGROUPS / "cpuacct", "cpuacct.usage"), (CGROUPS / own.strip("/"), "cgroup.controllers")):
        group = parent / f"joyfleet-peers-{os.getpid()}-{next(_numbers)}"
        if not (parent / marker).is_file():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        return group
    return None


def _cpu_s(group: Path) -> float:
    usage = group / "cpuacct.usage"
    if usage.is_file():
        return int(usage.read_text()) / 1e9
    stat = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(stat["usage_usec"]) / 1e6


def machine_cpu_s() -> float:
    """CPU seconds that all processes of the machine have used since it started."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq


@contextmanager
def busy(num_processes: int) -> Iterator[None]:
    """Run as many programs that compute without end, each in a session of its own, as another user's would be.

    With Linux's autogroups a session is a unit of scheduling: programs of one session would share one portion.
    """
    words = [sys.executable, "-c", _SPIN.format(parent=os.getpid())]
    spinning = [subprocess.Popen(words, start_new_session=True) for _ in range(num_processes)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
