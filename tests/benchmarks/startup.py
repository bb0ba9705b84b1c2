"""How long until the first caption: `joyfleet caption` with the stand-in, until its first fragment is staged.

`python -m tests.benchmarks.startup [--rounds R] [--images N] [--against CHECKOUT] [--warm]`. Each round has a run with
a cold page cache and one with a warm one; cold, the kernel is asked to drop the files of the libraries of this
environment (which pages others use it keeps). With --warm only the second. With --against, the code of another checkout
runs in turn with this one, each first in every second round, in the same environment. A run is followed from outside:
when the processes of each kind appear, when the first caption is staged, when the run ends, and the CPU of each kind
until the first caption.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.report import FOLDER, median, publish
from tests.cli import write_job

KINDS = {
    "gcs": "gcs_server",
    "raylet": "raylet/raylet",
    "dashboard": "dashboard/dashboard.py",
    "log monitor": "log_monitor.py",
    "monitor": "monitor.py",
    "node agent": "dashboard/agent.py",
    "runtime env agent": "runtime_env/agent",
    "progress actor": "ray::_ProgressActor",
    "committer": "ray::_Committer",
    "statistics actor": "ray::_StatsActor",
    "autoscaling actor": "ray::_AutoscalingCoordinator",
    "location actor": "ray::ActorLocationTracker",
    "caption actor": "CaptionActor",
    "reader": "ray::Read",
    "engine core": "VLLM::EngineCore",
}
"""What the command line of each kind holds; the first that fits, but later ones win for a process that is renamed."""
POLL_S = 0.05


def drop_page_cache() -> None:
    for file in Path(sys.prefix, "lib").rglob("*"):
        if file.is_file() and not file.is_symlink():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class Followed:
    """A run, looked at from outside."""

    def __init__(self, checkout: Path, folder: Path, job: str) -> None:
        self._output = folder
        self._seen: dict[int, tuple[str, float]] = {}
        self.appeared: dict[str, float] = {}
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jobs", "caption", job],
            cwd=folder.parent,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def until_staged(self) -> float:
        """Seconds to the first staged fragment."""
        while not any(self._output.glob("staging/**/*.parquet")) and not any(
            self._output.glob("captions/**/*.parquet")
        ):
            if self._process.poll() is not None:
                raise RuntimeError(f"the run ended before its first caption: {self._process.communicate()}")
            self._look()
            time.sleep(POLL_S)
        self._look()
        return time.monotonic() - self._began

    def until_end(self) -> float:
        self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the run ended with {self._process.returncode}")
        return time.monotonic() - self._began

    def cpu_by_kind(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        for kind, seconds in self._seen.values():
            sums[kind] = sums.get(kind, 0.0) + seconds
        return sums

    def _look(self) -> None:
        now = time.monotonic() - self._began
        driver = psutil.Process(self._process.pid)
        for item in [driver, *driver.children(recursive=True)]:
            try:
                with item.oneshot():
                    words, times = " ".join(item.cmdline()), item.cpu_times()
            except psutil.NoSuchProcess:
                continue
            kind = (
                "driver" if item.pid == driver.pid else next((k for k, mark in KINDS.items() if mark in words), "other")
            )
            if kind == "other" and item.pid in self._seen:
                kind = self._seen[item.pid][0]
            self.appeared.setdefault(kind, now)
            self._seen[item.pid] = (kind, times.user + times.system)


def measured(checkout: Path, folder: Path, shards: Path, name: str) -> dict[str, Any]:
    output = folder / name
    engine = {"kind": "vllm", "batch_images": 8, "max_model_len": 768}
    job = write_job(folder, shards, output, engine=engine, cluster={"stall_timeout_s": 600})
    run = Followed(checkout, output, job)
    staged = run.until_staged()
    cpu = run.cpu_by_kind()
    row = {"first_caption_s": staged, "all_s": run.until_end(), "cpu_s": sum(cpu.values())}
    row |= {f"{kind} at": at for kind, at in sorted(run.appeared.items(), key=lambda entry: entry[1])}
    return row | {f"{kind} CPU": seconds for kind, seconds in sorted(cpu.items(), key=lambda entry: -entry[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--against", type=Path, help="a checkout of another version")
    parser.add_argument("--warm", action="store_true", help="no runs with a cold page cache")
    parser.add_argument("--json", type=Path, default=FOLDER / "startup.json")
    args = parser.parse_args()
    from pipeline.standin.demo_data import draw_dataset

    here = Path(__file__).parents[2]
    checkouts = {**({"before": args.against.resolve()} if args.against else {}), "now": here}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder, shards = Path(scratch), Path(scratch, "in")
        draw_dataset(shards, num_images=args.images, seed=3, shard_rows=50)
        for number in range(args.rounds):
            for cache in ("warm",) if args.warm else ("cold", "warm"):
                for version, checkout in list(checkouts.items())[:: -1 if number % 2 else 1]:
                    if cache == "cold":
                        drop_page_cache()
                    row = measured(checkout, folder, shards, f"{version}-{cache}{number}")
                    rows.append({"version": version, "cache": cache, **row})
                    print(rows[-1], flush=True)
    summary = {
        f"{version}, {cache}: {name}, median": median([row[name] for row in chosen])
        for version in checkouts
        for cache in ("cold", "warm")
        if (chosen := [row for row in rows if (row["version"], row["cache"]) == (version, cache)])
        for name in ("first_caption_s", "all_s", "cpu_s")
    }
    publish(args, rows, summary)


if __name__ == "__main__":
    main()
