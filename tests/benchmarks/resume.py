"""How soon a run resumes at 30,000 shards of which all but a few are committed, on a local S3 server.

`python -m tests.benchmarks.resume [--shards N] [--left K]`. The committed files are put there as empty
objects, since a resume lists them and opens none. Told are the time from the command to the first read task
(the first shard asked for with GET), the LIST calls, and the driver's memory at its highest.
"""

import argparse
import os
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from pipeline.config import load_job
from pipeline.flow.prepared_job import prepare_job
from pipeline.ledger.layout import committed_path
from pipeline.storage import open_store
from tests.cli import finish, start, write_job
from tests.readers.shards import tar_of
from tests.s3_proxy import s3_proxy
from tests.s3_server import make_bucket, s3_server

WRITERS = 16


def fill(num_shards: int, num_left: int) -> None:
    """Put the source's shards and the committed files of all but the last ones."""
    source, output = open_store("s3://out/photos"), open_store("s3://out/captions")
    data = tar_of([])
    names = [f"{number // 1000:03d}/{number:06d}.tar" for number in range(num_shards)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda name: source.put(name, data), names))
        list(pool.map(lambda name: output.put(committed_path(name), b""), names[: num_shards - num_left]))


def measure(folder: Path, endpoint: str, asked: list[tuple[float, str, str]]) -> None:
    job = write_job(folder, "s3://out/photos", "s3://out/captions")
    prepare_job(load_job(job))  # writes run.json and plan.parquet, as the first run did
    began, cpu = time.monotonic(), time.process_time()
    prepare_job(load_job(job))
    print(f"preparing again: {time.monotonic() - began:.1f} s, of which {time.process_time() - cpu:.1f} s of own CPU")
    peak = [0]
    started = time.monotonic()
    asked.clear()
    process = start(folder, "caption", job, AWS_ENDPOINT_URL=endpoint)

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
    kinds = Counter("LIST" if "list-type=2" in path else method for _, method, path in asked)
    lists = [at for at, _, path in asked if "list-type=2" in path]
    reads = [at for at, method, path in asked if method == "GET" and "/photos/" in path and "list-type" not in path]
    print(done.out)
    print(f"exit code {done.code}; requests {dict(kinds)}")
    print(f"listings ended {max(lists) - started:.1f} s after the command, {len(lists)} calls")
    first = f"{min(reads) - started:.1f} s" if reads else "never"
    print(f"first read task {first} after the command; the whole resume {seconds:.1f} s")
    print(f"driver memory at its highest {peak[0] / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=30_000)
    parser.add_argument("--left", type=int, default=8)
    wanted = parser.parse_args()
    with s3_server() as environment, tempfile.TemporaryDirectory() as folder:
        os.environ.update(environment)
        make_bucket(environment["AWS_ENDPOINT_URL"], "out")
        began = time.monotonic()
        fill(wanted.shards, wanted.left)
        print(f"{wanted.shards:,} shards, {wanted.left} left, put in {time.monotonic() - began:.0f} s", flush=True)
        with s3_proxy(environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
            measure(Path(folder), endpoint, script.asked)


if __name__ == "__main__":
    main()
