"""SIGTERM and SIGINT end a command with exit code 4 and one line, whatever its main thread is doing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.signals import AGAIN, DEFAULT, EXIT_CODE
from pipeline.errors import Interrupted

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

BEGIN = """
import os, signal, sys, threading, time
from jobs.signals import SIGNALS
SIGNALS.take()
def ready():
    os.write(1, b"ready\\n")
"""


def script(body, *numbers):
    """Run a process that takes its signals and tells that it is ready; send it signals; its end."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + body], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    for number in numbers:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_the_exit_code_is_that_of_an_interrupted_run():
    assert Interrupted.exit_code == EXIT_CODE


WAITS = {
    "a sleep": "ready(); time.sleep(600)",
    "a library in C that does not return to Python": (
        # sleep() returns at a signal; this one goes on, as a library in C++ that waits for a condition.
        "import ctypes; libc = ctypes.CDLL(None); lock = ctypes.create_string_buffer(128)\n"
        "libc.pthread_mutex_lock(lock); ready(); libc.pthread_mutex_lock(lock)"
    ),
    "a lock that never opens": "lock = threading.Lock(); lock.acquire(); ready(); lock.acquire()",
    "an import lock": (
        # As of a thread that imports a large module meanwhile.
        "import importlib._bootstrap as b\nlock = b._ModuleLock('click'); lock.acquire(); ready()\n"
        "threading.Thread(target=lock.acquire, daemon=True).start(); time.sleep(600)"
    ),
    "a handler of a library": "signal.signal(signal.SIGTERM, lambda *_: None); ready(); time.sleep(600)",
    "a descriptor of a library": (
        "_, end = os.pipe(); os.set_blocking(end, False); signal.set_wakeup_fd(end); ready(); time.sleep(600)"
    ),
    "prints": "ready()\nwhile True: print('x' * 100, file=open(os.devnull, 'w'))",
}


@BOTH
@pytest.mark.parametrize("body", WAITS.values(), ids=WAITS.keys())
def test_a_signal_ends_a_process_at_once_whatever_it_waits_for(body, number):
    assert script(body, number)[::2] == (EXIT_CODE, f"joyfleet: {DEFAULT}\n")


DRAINS = """
asked = SIGNALS.drain()
ready()
while not asked.is_set():
    time.sleep(0.01)
"""


@BOTH
def test_the_first_signal_of_a_command_that_drains_is_its_own_matter(number):
    assert script(f"{DRAINS}os.write(2, b'drained'); SIGNALS.end(3)", number)[::2] == (3, "drained")


@BOTH
def test_a_second_signal_ends_the_process_at_once(number):
    code, _, err = script(f"{DRAINS}ready(); time.sleep(600)", number, number)
    assert (code, err) == (EXIT_CODE, f"joyfleet: {AGAIN}\n")


def test_a_signal_that_came_while_it_drained_ends_what_cannot_drain():
    assert script(f"{DRAINS}SIGNALS.end_at_once('stopped later'); time.sleep(600)", signal.SIGTERM)[::2] == (
        EXIT_CODE,
        "joyfleet: stopped later\n",
    )


@BOTH
def test_a_signal_after_the_end_changes_no_exit_code(number):
    code, _, err = script("SIGNALS.end(0); ready(); time.sleep(600)", number)
    assert (code, err) == (0, "")


def test_the_exit_handlers_of_libraries_do_not_hold_up_a_run_that_was_stopped():
    body = f"import atexit; atexit.register(time.sleep, 600)\n{DRAINS}SIGNALS.end(4)"
    assert script(body, signal.SIGTERM)[0] == 4


def test_a_scratch_folder_goes_with_the_process(tmp_path):
    body = f"""
with SIGNALS.scratch_folder("joyfleet-test-") as folder:
    os.makedirs(folder + "/a/b"); open(folder + "/a/b/c", "w").close()
    open({str(tmp_path / "name")!r}, "w").write(folder); ready(); time.sleep(600)
"""
    assert script(body, signal.SIGTERM)[0] == EXIT_CODE
    assert not Path((tmp_path / "name").read_text()).exists()


def test_the_line_goes_to_the_terminal_and_not_to_the_log(tmp_path):
    body = f"""
from pathlib import Path
from jobs.logs import redirect_output
redirect_output(Path({str(tmp_path / "run.log")!r})); os.dup2(os.dup(1), 1)
terminal = SIGNALS.terminal
print("noise", flush=True); os.write(terminal, b""); os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)
"""
    code, out, err = script(body)
    assert (code, out, err) == (EXIT_CODE, "", f"joyfleet: {DEFAULT}\n")


def test_a_forked_child_does_not_report_its_own_signals():
    body = """
there, here = os.pipe()
pid = os.fork()
if not pid:
    os.write(here, b"."); time.sleep(600)
os.read(there, 1); os.kill(pid, signal.SIGTERM); assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
time.sleep(0.5); os.write(1, b"alive"); os._exit(0)
"""
    assert script(body) == (0, "alive", "")
