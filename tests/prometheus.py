"""A local Prometheus for tests: a process of its own on 127.0.0.1, gone with the context."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OBSERVABILITY = Path(__file__).parents[1] / "infra" / "observability"


def binary(name: str) -> str:
    """Return the path of `prometheus` or `promtool`, or skip the test."""
    result = shutil.which(name)
    if result is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install prometheus")
    return result


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        return self.get("/api/v1/query", query=expression)["result"]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Scrape `target` every second and evaluate the project's own alert rules."""
    config = folder / "prometheus.json"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(OBSERVABILITY / "alerts.yml")],
                "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    words = [binary("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*words, f"--web.listen-address={address}"], stdout=log, stderr=log)
        try:
            yield _when_ready(Prometheus(f"http://{address}"), process)
        finally:
            process.kill()
            process.wait()


def _when_ready(server: Prometheus, process: subprocess.Popen[bytes]) -> Prometheus:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5):
                return server
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("Prometheus is not up within 60 s; see prometheus.log")
