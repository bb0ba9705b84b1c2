"""Processes for tests that kill: forked from a server process that has no other thread.

A child forked from pytest itself can hang before its first line, once in some thousand forks: CPython 3.11
waits in `_PyThreadState_DeleteExcept` for a lock that a thread of pyarrow or fsspec held in the parent.
"""

import multiprocessing
import os
import signal
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["__main__", "tests.ledger.world"])

TIMEOUT_S = 120


def exit_code(act, *arguments):
    """Run `act(*arguments)`, which pickles, in a process of its own; minus the signal if one ended it."""
    # Python 3.11's fork server ignores sys.path, and would leave the imports to each child.
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    process = CONTEXT.Process(target=_run, args=(dict(os.environ), act, arguments))
    process.start()
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"{act.__name__} did not end in {TIMEOUT_S} s")
    return process.exitcode


def was_killed(act, *arguments):
    """Whether SIGKILL ended it; any other failure is the test's."""
    code = exit_code(act, *arguments)
    assert code in (0, -signal.SIGKILL), "the child failed, see its traceback above"
    return code != 0


def _run(environment, act, arguments):
    os.environ.update(environment)
    act(*arguments)
