"""A replica's process imports once and forks a server, whose forks are cores with its environment and output."""

import os
import shlex
import subprocess
import sys
import textwrap
import threading
import time
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from pipeline.config.engine_config import EngineConfig
from pipeline.engines import core_server

PROJECT = Path(__file__).parents[2]

WORKER = """
import os, sys
from pathlib import Path
from pipeline.engines import core_server, vllm
from tests.engines.test_core_server import report

if __name__ != "__main__":
    sys.exit("the main module ran in the core")
folder = Path(sys.argv[1].removeprefix("--temp-dir="), sys.argv[2].removeprefix("--session-name="))
os.environ["LATER"] = "set after the fork"
read_end, write_end = os.pipe()
own = os.dup(2)
os.dup2(write_end, 2)
for name in ("first", "second"):
    core = vllm.context.Process(target=report, args=(str(folder / name),), name="EngineCore")
    core.start()
    core.join(60)
    assert core.exitcode == 3, core.exitcode
os.dup2(own, 2)
os.close(write_end)
print(os.getpid(), os.fdopen(read_end).read().replace("\\n", " "))
"""
"""In place of Ray's `default_worker.py`."""

VLLM = """
context = None
def start_cores_in(given):
    global context
    context = given
"""
"""In place of `pipeline.engines.vllm`, which imports vLLM."""


def report(path):
    """In the core: what it has of its server and of the replica."""
    sys.stderr.write("written by the core\n")
    sys.stderr.flush()
    Path(path).write_text(f"{'colorsys' in sys.modules} {os.environ.get('LATER')!r} {os.getppid()}")
    sys.exit(3)


def start(tmp_path, preload, worker=WORKER):
    """Run `main` as Ray does, with other modules in place of vLLM's."""
    session = tmp_path / "session"
    session.mkdir(exist_ok=True)
    script = tmp_path / "worker.py"
    script.write_text(worker)
    code = f"""
        import sys, types
        from pipeline.engines import core_server
        module = sys.modules["pipeline.engines.vllm"] = types.ModuleType("pipeline.engines.vllm")
        exec({VLLM!r}, vars(module))
        import pipeline.engines
        pipeline.engines.vllm = module
        core_server.PRELOADED = {preload!r}
        core_server.main()
    """
    words = [
        sys.executable,
        "-c",
        textwrap.dedent(code),
        str(script),
        f"--temp-dir={tmp_path}",
        "--session-name=session",
    ]
    env = {**os.environ, "PYTHONPATH": f"{PROJECT}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_cores_are_forks_of_a_process_that_has_imported(tmp_path):
    done = start(tmp_path, ("colorsys",))
    assert done.returncode == 0, done
    worker, text = done.stdout.strip().split(" ", 1)
    assert text == "written by the core written by the core"
    reports = [(tmp_path / "session" / name).read_text().rsplit(" ", 1) for name in ("first", "second")]
    assert [report[0] for report in reports] == ["True 'set after the fork'"] * 2
    [server] = {int(report[1]) for report in reports}
    assert server != int(worker)
    until = time.monotonic() + 20
    while psutil.pid_exists(server) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(server), "the server outlives its replica"
    assert not list((tmp_path / "session").glob("importing.*"))


def test_an_import_that_fails_leaves_the_worker_to_report_it(tmp_path):
    done = start(tmp_path, ("no_such_module",), "print('a worker of Ray')")
    assert done.stdout == "a worker of Ray\n"
    assert "No module named 'no_such_module'" in done.stderr
    assert done.returncode == 0


def test_an_import_that_ends_its_process_is_not_repeated_before_ray_knows_the_worker(tmp_path):
    (tmp_path / "deadly.py").write_text("import os; os.kill(os.getpid(), 9)")
    assert start(tmp_path, ("deadly",), "print('a worker of Ray')").returncode == -9
    again = start(tmp_path, ("deadly",), "print('a worker of Ray')")
    assert (again.returncode, again.stdout) == (0, "a worker of Ray\n")
    assert "an import of vLLM has ended its process" in again.stderr


def test_the_import_of_another_replica_is_no_fault(tmp_path):
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / f"importing.{os.getpid()}").touch()
    assert start(tmp_path, ("colorsys",), "import sys; print('colorsys' in sys.modules)").stdout == "True\n"


def test_a_process_with_threads_is_not_forked(tmp_path):
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    with pytest.raises(RuntimeError, match=r"no fork of this process: found the threads .*; allowed: jemalloc_bg_thd"):
        core_server.CoreServer(tmp_path / "core")
    end.set()
    thread.join()


def test_only_a_replica_of_one_process_with_vllms_cpu_build_is_started_so(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lambda name: "0")
    words = shlex.split(core_server.worker_command(EngineConfig()))
    assert words[:2] == ["env", "OMP_NUM_THREADS=1"]
    assert words[3:6] == [sys.executable, "-P", "-c"]
    for other in (EngineConfig(kind="echo"), EngineConfig(tensor_parallel_size=2)):
        assert core_server.worker_command(other) is None
    monkeypatch.setattr(metadata, "version", missing)
    assert core_server.worker_command(EngineConfig()) is None


def test_the_libraries_of_the_user_are_preloaded_too(monkeypatch):
    monkeypatch.setattr(core_server, "_in_package", lambda name, pattern: [Path(f"/lib/{name}.so")])
    monkeypatch.setenv("LD_PRELOAD", "/lib/user.so")
    assert core_server._preloaded_libraries() == "/lib/vllm.so:/lib/torch.so:/lib/user.so"
    monkeypatch.delenv("LD_PRELOAD")
    assert core_server._preloaded_libraries() == "/lib/vllm.so:/lib/torch.so"
