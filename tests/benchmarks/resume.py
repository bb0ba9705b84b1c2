"""How soon a run resumes when all but a few of its shards are committed, on an S3 server of this machine.

`python -m tests.benchmarks.resume [--shards N] [--left K] [--rounds R] [--against CHECKOUT] [--simulated LATENCY_MS]`.
The committed files are empty objects, since a resume lists them and opens none. What is reported: the time from the
command to the first read task (the first shard asked for with GET), the LIST calls, and the driver's memory at its
highest. By default a real server (ministack) holds the objects behind a recording proxy. With --simulated, a server
computes its listings and waits LATENCY_MS before each answer, as a store that is not on this machine; a million shards
need no hours to be put. With --against, another checkout resumes in turn.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline.ledger.layout import committed_path, quarantine_path
from pipeline.storage import open_store
from tests.benchmarks.report import FOLDER, publish
from tests.cli import finish, write_job
from tests.listing_server import shard_name
from tests.readers.shards import tar_of
from tests.s3_proxy import s3_proxy
from tests.s3_server import make_bucket, s3_server

WRITERS = 16
PREPARE = """
import resource, sys, time
from pipeline.config import load_job
from pipeline.flow.prepared_job import prepare_job
began = time.monotonic()
prepared = prepare_job(load_job(sys.argv[1]))
print(time.monotonic() - began, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""

Asked = list[tuple[float, str, str]]


def real_name(number: int) -> str:
    return f"{number // 1000:03d}/{number:06d}.tar"


def reopen(num_shards: int, num_left: int, name: Callable[[int], str]) -> None:
    """Remove what an earlier run has made of the last shards."""
    last = [name(number) for number in range(num_shards - num_left, num_shards)]
    open_store("s3://out/captions").delete([of(shard) for shard in last for of in (committed_path, quarantine_path)])


def fill(num_shards: int, num_left: int) -> None:
    """Put the source's shards and the committed files of all but the last ones."""
    source, output = open_store("s3://out/photos"), open_store("s3://out/captions")
    data = tar_of([])
    names = [real_name(number) for number in range(num_shards)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda name: source.put(name, data), names))
        list(pool.map(lambda name: output.put(committed_path(name), b""), names[: num_shards - num_left]))


class Server:
    """A server, and what it was asked for."""

    def __init__(self, environment: dict[str, str], asked: Asked | Path) -> None:
        self.environment = environment
        self._asked = asked

    def asked(self, since: float) -> Asked:
        if not isinstance(self._asked, Path):
            return [item for item in self._asked if item[0] >= since]
        lines = (line.split(" ", 2) for line in self._asked.read_text().splitlines())
        return [(float(at), method, path) for at, method, path in lines if float(at) >= since]


@contextmanager
def real_server(num_shards: int, num_left: int) -> Iterator[Server]:
    with s3_server() as environment:
        os.environ.update(environment)
        make_bucket(environment["AWS_ENDPOINT_URL"], "out")
        began = time.monotonic()
        fill(num_shards, num_left)
        print(f"{num_shards:,} shards, {num_left} left, put in {time.monotonic() - began:.0f} s", flush=True)
        with s3_proxy(environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
            yield Server({**environment, "AWS_ENDPOINT_URL": endpoint}, script.asked)


@contextmanager
def simulated_server(num_shards: int, num_left: int, latency_ms: float) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "asked")
        words = [str(port), str(num_shards), str(num_left), str(latency_ms / 1000), str(log)]
        process = subprocess.Popen([sys.executable, "-m", "tests.listing_server", *words])
        try:
            while not log.exists():
                time.sleep(0.1)
            time.sleep(0.5)
            yield Server(
                {
                    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                    "AWS_ACCESS_KEY_ID": "test",
                    "AWS_SECRET_ACCESS_KEY": "test",
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "AWS_EC2_METADATA_DISABLED": "true",
                },
                log,
            )
        finally:
            process.kill()
            process.wait()


def prepared(checkout: Path, folder: Path, job: str, server: Server) -> dict[str, float]:
    """Prepare the job in a process of its own, as a run does before it captions."""
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, job], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    seconds, cpu_s, peak = map(float, done.stdout.split()[-3:])
    return {"plan_s": seconds, "plan_process_cpu_s": cpu_s, "plan_peak_mib": peak}


def resumed(checkout: Path, folder: Path, job: str, server: Server) -> dict[str, Any]:
    environment = {**os.environ, **server.environment, "PYTHONPATH": str(checkout)}
    peak = [0]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "caption", job],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def watch() -> None:
        while process.poll() is None:
            try:
                peak[0] = max(peak[0], psutil.Process(process.pid).memory_info().rss)
            except psutil.Error:
                return
            time.sleep(0.1)

    threading.Thread(target=watch, daemon=True).start()
    done = finish(process)
    seconds = time.monotonic() - started
    asked = server.asked(started)
    kinds = Counter("LIST" if "list-type=2" in path else method for _, method, path in asked)
    lists = [at for at, _, path in asked if "list-type=2" in path]
    reads = [at for at, method, path in asked if method == "GET" and "/photos/" in path and "list-type" not in path]
    return {
        "exit": done.code,
        "first_read_s": min(reads) - started if reads else -1.0,
        "last_list_s": max(lists) - started,
        "all_s": seconds,
        "lists": kinds["LIST"],
        "driver_peak_mib": peak[0] / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=30_000)
    parser.add_argument("--left", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--simulated", type=float, metavar="LATENCY_MS", help="compute the listings")
    parser.add_argument("--json", type=Path, default=FOLDER / "resume.json")
    args = parser.parse_args()
    checkouts = {**({"before": args.against.resolve()} if args.against else {}), "now": Path(__file__).parents[2]}
    server = (
        real_server(args.shards, args.left)
        if args.simulated is None
        else simulated_server(args.shards, args.left, args.simulated)
    )
    name = real_name if args.simulated is None else shard_name
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, server as running:
        folder = Path(scratch)
        os.environ.update(running.environment)
        for _ in range(args.rounds):
            for version, checkout in checkouts.items():
                job = write_job(folder, "s3://out/photos", "s3://out/captions")
                if not rows:
                    prepared(checkout, folder, job, running)  # writes run.json and plan.parquet, as a first run does
                reopen(args.shards, args.left, name)
                rows.append({"version": version, **prepared(checkout, folder, job, running)})
                rows[-1] |= resumed(checkout, folder, job, running)
                print(rows[-1], flush=True)
    publish(args, rows, {"shards": args.shards, "left": args.left, "latency_ms": args.simulated or 0.0})


if __name__ == "__main__":
    main()
