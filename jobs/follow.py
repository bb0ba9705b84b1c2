"""`joyfleet caption JOB --follow SECONDS`: captions new shards as they arrive, until a signal ends it.

A round without new shards costs one listing of the source, and Ray is not even imported. A round with new shards adds
them to the plan, runs as `caption --extend` does, and then replaces this process by a new one of the same command
(exec, so its id stays). So each run has a Ray, threads and memory of its own, as if it had been started by hand.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from jobs.caption import print_remarks, run_with_summary
from jobs.logs import Terminal
from jobs.signals import EXIT_CODE, NUMBERS, SIGNALS
from jobs.terminal import echo
from pipeline.errors import PlanExtended
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import PreparedJob, prepare_job
from pipeline.ledger import layout
from pipeline.ledger.shard_plan import compare_with_source
from pipeline.readers import list_source
from pipeline.storage import open_store

if TYPE_CHECKING:
    from pipeline.config import JobConfig

WAITING = "stopped while waiting for new shards; nothing was in flight; run the same command again to resume"

QUARANTINED = 3
"""Exit code of a run that is done, but has shards in quarantine: the next round can continue."""

SIGNAL_S = 0.1
"""Within this time the thread that acts on signals has acted on one that came before the default handlers."""


def follow(job: JobConfig, every_s: float) -> NoReturn:
    """Caption what the source has, then what it gains.

    Args:
        job: the job.
        every_s: seconds between two listings of the source. A file on a disk that was written within this time is not
            captioned yet.

    Raises:
        OutputMismatch: a planned shard has changed or is gone.
        PipelineError: as `prepare_job`.
    """
    extension = Extension(every_s)
    _wait_for_first_shards(job, extension)
    while True:
        prepared = _prepare(job, extension)
        if prepared is not None and prepared.tasks:
            _run(prepared)
        _wait_for_new_shards(job, prepared, extension)


def _prepare(job: JobConfig, extension: Extension) -> PreparedJob | None:
    """Return the prepared job; None if another run has added the new shards to the plan, and so captions them."""
    try:
        return prepare_job(job, extension)
    except PlanExtended as err:
        echo(f"joyfleet: note: {err}", err=True)
        return None


def _run(prepared: PreparedJob) -> NoReturn:
    """Run the job, then start this command again in place of this process, or end it."""
    exit_code, terminal = run_with_summary(prepared)
    if exit_code not in (0, QUARANTINED):
        sys.exit(exit_code)
    _start_again(terminal)


def _start_again(terminal: Terminal) -> NoReturn:
    # A signal from now on ends the process, as one does in the first moments of the new one.
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    time.sleep(SIGNAL_S)
    if SIGNALS.drain_requested.is_set():
        terminal.err.write(f"joyfleet: {WAITING}\n")
        sys.exit(EXIT_CODE)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # processes of Ray, whose parent stays alive
            pass
    terminal.restore()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _wait_for_first_shards(job: JobConfig, extension: Extension) -> None:
    """Wait until no shard of a source that is not planned yet is being written."""
    if open_store(job.output).exists(layout.PLAN):
        return
    while True:
        shards = list_source(job.source.without_images()).shards
        if len(extension.settled(shards)) == len(shards):
            return
        _wait(extension, "shards of the source were written a moment ago")


def _wait_for_new_shards(job: JobConfig, prepared: PreparedJob | None, extension: Extension) -> None:
    """Return when there are shards to add; after `prepared` is None, after one interval.

    Raises:
        OutputMismatch: a planned shard has changed or is gone.
    """
    if prepared is None:
        _wait(extension, "another run extends this output")
        return
    print_remarks(prepared)
    committed, planned = len(prepared.remaining.committed), len(prepared.plan.shards)
    reason = f"{committed:,} of {planned:,} shards are committed"
    while True:
        _wait(extension, reason)
        listed = list_source(job.source.without_images())
        plan = compare_with_source(prepared.store.url, prepared.plan, listed.shards)
        if extension.settled(plan.unplanned):
            return
        reason = ""


def _wait(extension: Extension, reason: str) -> None:
    SIGNALS.end_at_once(WAITING)
    if reason:
        echo(f"joyfleet: {reason}; waiting for new shards, every {extension.quiet_s:g} s", err=True)
    time.sleep(extension.quiet_s)
