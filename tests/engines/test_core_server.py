"""The engine's core starts from a server that has imported vLLM, with the environment of its parent and no main."""

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.engines import core_server as module
from pipeline.engines.core_server import CoreServer, core_server

CHILD = """
import json, os, sys
import pipeline.engines.core_server as module
from tests.engines.test_core_server import report
module.PRELOADED = ("colorsys",)
if __name__ == "__main__":
    server = module.CoreServer()
    os.environ["LATER"] = "set after the server"
    main = vars(sys.modules["__main__"])["__file__"]
    process = server.context.Process(target=report, args=(sys.argv[1],), name="EngineCore")
    process.start()
    process.join(60)
    assert vars(sys.modules["__main__"])["__file__"] == main
    print(process.exitcode, server.stderr.text(0.5))
else:
    sys.exit("the main module ran in the child")
"""


def report(path):
    """In the child: what it has of its server and of its parent."""
    print("written by the child", file=sys.stderr, flush=True)
    Path(path).write_text(
        f"{'colorsys' in sys.modules} {os.environ.get('LATER')} {os.environ.get('LD_PRELOAD', '')!r} {os.getppid()}"
    )


def test_a_core_has_the_modules_of_the_server_and_the_environment_of_its_parent(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(CHILD)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, str(script), str(tmp_path / "report")]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "0 written by the child\n"
    assert "written by the child" in done.stderr
    preloaded, later, *_, parent = (tmp_path / "report").read_text().split(" ")
    assert (preloaded, later) == ("True", "set")
    # The server ends with the process that started it.
    until = time.monotonic() + 20
    while Path(f"/proc/{parent}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{parent}").exists()


def test_the_environment_of_the_server_is_not_that_of_its_parent(monkeypatch):
    monkeypatch.setattr(module, "_in_package", lambda name, pattern: [Path(f"/lib/{name}.so")])
    for before in (None, "/lib/user.so"):
        if before:
            monkeypatch.setenv("LD_PRELOAD", before)
        else:
            monkeypatch.delenv("LD_PRELOAD", raising=False)
        with module._preloaded_libraries():
            assert os.environ["LD_PRELOAD"] == "/lib/vllm.so:/lib/torch.so" + (f":{before}" if before else "")
        assert os.environ.get("LD_PRELOAD") == before


def test_only_the_cpu_build_of_vllm_has_a_server(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(CoreServer, "__init__", lambda _: pytest.fail("a server was started"))
    core_server.cache_clear()
    assert core_server() is None
    core_server.cache_clear()
