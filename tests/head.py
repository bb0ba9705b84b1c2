"""A Ray head of one's own with its job server, started as its users start one, on 127.0.0.1 and free ports alone."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.nodes import ENVIRONMENT

PROJECT = Path(__file__).parents[1]


@contextmanager
def head(num_cpus: int = 2, **environment: str) -> Iterator[str]:
    """Start it; yield the address of its job server."""
    ports = _free_ports(2)
    temporary = tempfile.mkdtemp(prefix="jf-")  # short: Ray's sockets lie below it
    scripts = Path(sys.executable).parent
    environment = {**os.environ, **ENVIRONMENT, "PATH": f"{scripts}:{os.environ['PATH']}", **environment}
    words = ["--head", "--block", "--port=0", "--metrics-export-port=0", "--dashboard-agent-listen-port=0"]
    words += [f"--dashboard-port={ports[0]}", f"--ray-client-server-port={ports[1]}", f"--temp-dir={temporary}"]
    words += [f"--num-cpus={num_cpus}", f"--object-store-memory={200 << 20}", "--disable-usage-stats"]
    address = f"http://127.0.0.1:{ports[0]}"
    log = Path(temporary, "head.log")
    with (
        log.open("w") as out,
        subprocess.Popen([str(scripts / "ray"), "start", *words], env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            _wait_for(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(180)
    shutil.rmtree(temporary, ignore_errors=True)


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        else:
            return


def _free_ports(number: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    result = [item.getsockname()[1] for item in held]
    for item in held:
        item.close()
    return result


def copy_project(folder: Path) -> Path:
    """Copy what runs on a cluster, as a checkout would hold it; the place for a job's file, too."""
    for name in ("jobs", "pipeline", "schemas", "infra"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
