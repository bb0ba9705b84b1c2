"""The child processes of an engine die with the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

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
