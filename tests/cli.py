"""The command line as its users run it: a process of its own, in a folder of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

TIMEOUT_S = 400


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "jobs", *words]


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command in `folder`; it finds the project through PYTHONPATH, as an installed one would be found."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONWARNINGS": "default", **environment}
    return subprocess.Popen(
        command(*words), cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Done(process.returncode, out, err)


def run(folder: Path, *words: str, **environment: str) -> Done:
    return finish(start(folder, *words, **environment))


OWN_RAY = {"num_cpus": 2, "object_store_gib": 0.3}
"""Two CPUs, however many there are, and little memory: what a Ray of a test's own is given."""


def write_job(folder: Path, source: object, output: object, *, own_ray: bool = True, **rest: object) -> str:
    """Write job.yaml with the echo engine and one slot, unless `rest` says otherwise; return its path.

    A job that goes to a cluster has no Ray of its own to give anything.
    """
    # vLLM's start and its restart are no progress, and take minutes beside other work.
    stall_timeout_s = TIMEOUT_S if "vllm" in str(rest.get("engine")) else 120
    job = {
        "source": source if isinstance(source, dict) else str(source),
        "output": str(output),
        "model": "standin",
        "captions": [{"slot": "long", "mode": "descriptive"}],
        "engine": {"kind": "echo", "batch_images": 8},
        "cluster": {**(OWN_RAY if own_ray else {}), "stall_timeout_s": stall_timeout_s},
    }
    for key, value in rest.items():
        job[key] = {**job[key], **value} if isinstance(value, dict) and isinstance(job.get(key), dict) else value
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    return str(file)


def wait_until(seen: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    """Wait for progress that can be seen; fail when the process ends before."""
    until = time.monotonic() + TIMEOUT_S
    while not seen():
        if process.poll() is not None:
            raise AssertionError(f"the run ended (exit code {process.returncode}) before {what}: {finish(process)}")
        if time.monotonic() > until:
            children = "\n".join(map(str, psutil.Process(process.pid).children(recursive=True)))
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"not within {TIMEOUT_S} s: {what}; the processes:\n{children}\n{out}\n{err}")
        time.sleep(0.05)


def wait_for_drain(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until no replica of the run in `folder`, which got a signal, starts further requests: its log says so."""
    logs = folder / "logs"
    text = "no replica starts further requests"
    wait_until(lambda: any(text in log.read_text() for log in logs.glob("*.log")), process, "its drain")
