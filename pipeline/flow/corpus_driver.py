"""The driver of a corpus: runs its steps one after the other, over the cluster or in a thread of this process.

The remaining work of each step is read from the output itself, so a driver may be killed at any line; the next run
resumes where it stopped.
"""

import logging
import threading
import time
from collections.abc import Callable

from pipeline.config import LogFormat
from pipeline.corpus.corpus_job import PreparedCorpus, Step, remove_staged, steps
from pipeline.errors import Interrupted, PipelineError
from pipeline.flow.cluster import Cluster, connected
from pipeline.flow.parallel_map import parallel_map

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often the driver checks for a stop request during a step that runs in this process."""

StepReport = Callable[[str, int, int], None]
"""Called with the name of a step, the number of completed items, and the number of items."""


def run_corpus(prepared: PreparedCorpus, report: StepReport, stop: threading.Event) -> None:
    """Run the remaining steps of a corpus.

    Args:
        prepared: the corpus, checked, with its output claimed.
        report: called after each item of a step that runs over the cluster.
        stop: set it to end the run early.

    Raises:
        Interrupted: `stop` was set.
        Stalled: no item of a step was completed for `cluster.stall_timeout_s`.
        PipelineError: any other error that ended the run.
    """
    if prepared.finished:
        remove_staged(prepared)  # left by a run that was killed after it had published the corpus
        return
    try:
        with connected(prepared.config.cluster, LogFormat.TEXT, stop) as cluster:
            for step in steps(prepared):
                _run_step(step, prepared, cluster, report, stop)
    except Interrupted:
        raise
    except (PipelineError, FileNotFoundError) as err:
        # Another run that completed the same corpus has removed the staging files that this run was reading.
        if prepared.finished:
            return
        if isinstance(err, FileNotFoundError):
            raise PipelineError(f"{err}: a staging file is missing; run the same command again") from err
        raise


def _run_step(
    step: Step, prepared: PreparedCorpus, cluster: Cluster, report: StepReport, stop: threading.Event
) -> None:
    started = time.monotonic()
    if step.driver_work is not None:
        _run_in_thread(step.driver_work, stop)
    elif step.work is not None:
        results = parallel_map(step.work, step.items, cluster, stop, prepared.config.cluster.stall_timeout_s)
        for num_done, _ in enumerate(results, 1):
            report(step.name, num_done, len(step.items))
    log.info("step=%s items=%d seconds=%.1f", step.name, len(step.items), time.monotonic() - started)


def _run_in_thread(work: Callable[[], object], stop: threading.Event) -> None:
    """Run a step in a thread, so that a stop request ends the run at once; the next run repeats the step."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as err:  # noqa: BLE001 - handed to the main thread, which raises it
            errors.append(err)
        ended.set()

    threading.Thread(target=run, name="step", daemon=True).start()
    while not ended.wait(POLL_S):
        if stop.is_set():
            raise Interrupted("stopped by a signal; run the same command again to resume")
    if errors:
        raise errors[0]
