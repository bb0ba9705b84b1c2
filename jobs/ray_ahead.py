"""Imports Ray, and starts it, while a job is planned: importing takes a second or two, starting three to six.

Planning runs in a thread and Ray's import in another; the main thread waits for both, because it alone can restore the
signal handlers that Ray replaces when it has started. A local Ray is started as soon as planning knows that the run has
work: a run with nothing to do, or with a mistake in its job file, starts none. A run on a cluster connects to it after
the plan.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs.signals import SIGNALS
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.flow.arenas import limit_arenas
from pipeline.flow.ray_env import address_of, changes_loggers

if TYPE_CHECKING:
    from pipeline.flow.cluster import ClusterStart
    from pipeline.flow.prepared_job import PreparedJob

POLL_S = 0.05

WorkFound = Callable[[], None]


class RayAhead:
    """The import of Ray and its start, for one run."""

    def __init__(self, job: JobConfig) -> None:
        """Begin to import; call it when everything else is imported.

        Two threads that import the same module may see it half initialised.
        """
        self._job = job
        self._decided = threading.Event()
        self._has_work = False
        self._start: ClusterStart | None = None
        # requests ignores this warning itself, but another thread that leaves `warnings.catch_warnings` restores it.
        warnings.filterwarnings("ignore", "SOCKS support in urllib3 requires")
        # Not a daemon thread: a process that ends while it loads Ray's C++ library may crash.
        self._thread = threading.Thread(target=self._import, name="import")
        self._thread.start()

    def plan(self, prepare: Callable[[WorkFound], PreparedJob]) -> PreparedJob:
        """Return what `prepare` returns; it calls its argument when it knows that the run has work."""
        with ThreadPoolExecutor(1, thread_name_prefix="plan") as pool:
            planned = pool.submit(prepare, self._begin)
            try:
                self._wait(planned)
                return planned.result()
            except BaseException:
                # Ray may be starting, and its guard kills its processes when this one ends. Nor is there a reason to
                # wait for imports and listings that are under way.
                SIGNALS.end_without_exit_handlers()
                raise
            finally:
                self._decided.set()

    def started(self) -> ClusterStart | None:
        """Return the start of Ray, which may still be going on; None if Ray was not started."""
        self._thread.join()
        return self._start

    def _begin(self) -> None:
        # The output of this process's loggers is redirected soon.
        if address_of(self._job.cluster) is None and not changes_loggers(self._job.logs):
            self._has_work = True
            self._decided.set()

    def _import(self) -> None:
        cluster = import_module("pipeline.flow.cluster")
        self._decided.wait()
        if self._has_work:
            limit_arenas()  # before Ray starts its threads
            with suppress(ConfigError):  # the run finds the same mistake, where it can be said
                self._start = cluster.ClusterStart(self._job.cluster, self._job.logs)
        import_module("pipeline.flow.driver")

    def _wait(self, planned: Future[Any]) -> None:
        """Wait for the plan; restore the signal handlers as soon as Ray has started."""
        restored = False
        while not planned.done():
            if restored or self._start is None:
                wait([planned], POLL_S)
            elif self._start.poll(POLL_S):
                restore_signals = import_module("pipeline.flow.cluster").restored_signals
                with restore_signals():
                    restored = True
