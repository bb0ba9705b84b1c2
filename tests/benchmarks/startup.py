"""How long until the first caption: `joyfleet caption` with the stand-in, until its first fragment is staged.

`python -m tests.benchmarks.startup [--rounds R]`. Cold, the libraries' files are not in the page cache: the kernel
is asked to drop those of this environment before (which pages others use it keeps). Warm, the command has run
just before. Beside it, in one process each: importing vLLM, and Ray's start.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.benchmarks.report import arguments, median, publish
from tests.cli import start, write_job

STEPS = {
    "ray_s": "import ray; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)",
    "vllm_import_s": "import vllm.v1.engine.async_llm, vllm.engine.arg_utils",
}


def drop_page_cache() -> None:
    for file in Path(sys.prefix, "lib").rglob("*"):
        if file.is_file() and not file.is_symlink():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def first_caption_s(folder: Path, shards: Path, name: str) -> tuple[float, float]:
    """Return seconds to the first staged fragment, and CPU seconds of all processes until then."""
    output = folder / name
    engine = {"kind": "vllm", "batch_images": 1, "max_model_len": 768}
    job = write_job(folder, shards, output, engine=engine, cluster={"stall_timeout_s": 600})
    began = time.monotonic()
    process = start(folder, "caption", job)
    seen: dict[int, float] = {}
    while not any((output / "staging").rglob("*.parquet")):
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before its first caption: {process.communicate()}")
        for item in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            try:
                times = item.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seen[item.pid] = times.user + times.system
        time.sleep(0.1)
    seconds = time.monotonic() - began
    process.terminate()
    process.communicate()
    return seconds, sum(seen.values())


def step_s(code: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.monotonic() - began


def main() -> None:
    args = arguments("startup", __doc__, rounds=2)
    from pipeline.standin.demo_data import draw_dataset

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, shards = Path(scratch), Path(scratch, "in")
        draw_dataset(shards, num_images=64, seed=3, shard_rows=32)
        for number in range(args.rounds):
            drop_page_cache()
            cold, cold_cpu = first_caption_s(folder, shards, f"cold{number}")
            warm, warm_cpu = first_caption_s(folder, shards, f"warm{number}")
            steps = {name: step_s(code) for name, code in STEPS.items()}
            rows.append({"cold_s": cold, "warm_s": warm, "cold_cpu_s": cold_cpu, "warm_cpu_s": warm_cpu, **steps})
            print(rows[-1], flush=True)
    publish(args, rows, {f"{name}, median": median([row[name] for row in rows]) for name in rows[0]})


if __name__ == "__main__":
    main()
