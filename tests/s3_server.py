"""Local S3 servers for tests, ministack and moto: up in about a second, on 127.0.0.1 only, gone with their process."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

START_S = 60
"""It takes 1 s alone; a shared machine may be busy."""


MINISTACK = ("-c", "from ministack.app import main; main()")
MOTO = (str(Path(__file__).with_name("moto_s3.py")),)


@contextmanager
def s3_server(program: tuple[str, ...] = MINISTACK) -> Iterator[dict[str, str]]:
    """Yield the environment that makes any S3 client use the server; stop it by its process id afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    # ministack's default is to listen on every interface.
    own = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "s3", "LOG_LEVEL": "ERROR"}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, *program],
            env=os.environ | own,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(process, endpoint, Path(folder, "log"))
            yield {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            process.kill()
            process.wait()


def make_bucket(endpoint: str, name: str) -> None:
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=10):
        pass


def _wait(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(endpoint, timeout=1):
                return
        except urllib.error.HTTPError as err:
            err.close()
            return  # any answer is an answer
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the server does not answer at {endpoint}: {log.read_text(errors='replace')[-2000:]}")


_shared: dict[tuple[str, ...], tuple[ExitStack, dict[str, str]]] = {}


@contextmanager
def _shared_server(program: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """One server a process, with a bucket named `out`.

    Each module that imports a fixture has an instance of its own of it, also of one for the session. With a server for
    each, the environment would be that of the last one started.
    """
    if program in _shared:
        yield _shared[program][1]
        return
    with ExitStack() as stack:
        environment = stack.enter_context(s3_server(program))
        make_bucket(environment["AWS_ENDPOINT_URL"], "out")
        _shared[program] = (stack.pop_all(), environment)
    yield environment


def stop_shared_servers() -> None:
    while _shared:
        _, (stack, _) = _shared.popitem()
        stack.close()


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """The server of the session, its environment set for the whole of it, with a bucket named `out`."""
    with _shared_server(MINISTACK) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="session")
def moto_environment() -> Iterator[dict[str, str]]:
    """Another server, with a bucket named `out`; its environment is for each test to set."""
    with _shared_server(MOTO) as environment:
        yield environment
