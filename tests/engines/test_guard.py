"""The child processes of an engine die with the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline.engines.orphan_reaper import OrphanReaper, _start_ticks

PARENT = """
import subprocess, sys, time
from pipeline.engines.orphan_reaper import start_with_reaper
child, reaper = start_with_reaper(lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
if "release" in sys.argv:
    reaper.release()
print(child.pid, flush=True)
time.sleep(600)
"""


def orphan_of(*words):
    """Kill a parent that started a guarded child; return the child."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *words], stdout=subprocess.PIPE, text=True, env=env)
    with parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    return child


def test_a_child_dies_with_its_killed_parent():
    _, alive = psutil.wait_procs([orphan_of()], timeout=30)
    assert not alive


def test_a_released_child_keeps_running():
    child = orphan_of("release")
    with pytest.raises(psutil.TimeoutExpired):
        child.wait(timeout=1)
    child.kill()


def test_a_process_that_took_the_id_of_one_that_ended_keeps_running():
    with subprocess.Popen(["sleep", "600"]) as child:
        OrphanReaper({f"{child.pid}:1"})._process.communicate()  # the end of the pipe, as by the parent's death
        assert child.poll() is None
        OrphanReaper({f"{child.pid}:{_start_ticks(child.pid)}"})._process.communicate()
        assert child.wait(timeout=30) == -signal.SIGKILL


RUN = """
import os, subprocess, sys, time
from pipeline.engines.orphan_reaper import RunGuard
before = subprocess.Popen(["sleep", "600"])
guard = RunGuard()
# Of a group and a session of its own, an orphan, and stopped: no signal to a group, no parent's death reaches it.
orphan = int(subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True).stdout)
os.kill(orphan, 19)
print(before.pid, orphan, flush=True)
if "end" in sys.argv:
    guard.end()
    print("ended", flush=True)
time.sleep(600)
"""


def run_of(*words):
    """Start a run with a guard, a process from before it and an orphan of it; the run, both, and whether it ended."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen([sys.executable, "-c", RUN, *words], stdout=subprocess.PIPE, text=True, env=env)
    return run, [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]


@pytest.mark.parametrize("end", [True, False])
def test_nothing_that_a_run_started_outlives_it_and_nothing_else_is_touched(end):
    run, (before, orphan) = run_of(*["end"] * end)
    with run:
        if end:
            assert run.stdout.readline() == "ended\n"
        else:
            run.kill()
        _, alive = psutil.wait_procs([orphan], timeout=30)
        assert not alive
        assert before.is_running()
        before.kill()
        run.kill()
