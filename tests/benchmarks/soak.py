"""Memory of every process of a long run, by the images done: which of them grow, and whether they stop growing.

`python -m tests.benchmarks.soak [--seconds S] [--every-s E] [--shard-images N] [--batch-images B]`. By default two
hours. One job with the echo engine and the stand-in's small pictures, so that as many images pass as this machine can
move: tar shards of tiny JPEGs, a few files under many names (hard links). A run that ends earlier had more speed than
shards. Of each process the sampler reads RSS, PSS and USS of /proc/PID/smaps_rollup. A slope is Theil and Sen's median
over all pairs of samples, after the first quarter of the time, which is warm-up; the same for each quarter of
the rest tells growth that goes on from growth that ends. All samples go to NAME.samples.jsonl beside the figures.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from PIL import Image

from tests.benchmarks.report import arguments, publish

SECONDS = 2 * 60 * 60
MOST_PER_S = 4000
"""Images for which shards are made, per second of the run: twice what two cores were seen to move."""
SIDE_PX = 16
DISTINCT = 8
"""Tar files that exist; all other shards are hard links to them, of which ext4 allows 65,000 each."""
WARM_UP = 0.25
"""Share of the time whose samples enter no slope: imports, pools and caches fill."""
QUARTERS = 4
PAIRED = 600
"""Samples of which all pairs are formed at most; more are thinned, since pairs grow with the square."""
MB = 1e6

Floats = npt.NDArray[np.float64]


def link_shards(folder: Path, num_shards: int, shard_images: int) -> None:
    """Write a few tar shards of tiny JPEGs, and the rest as hard links to them."""
    rng = np.random.default_rng(0)
    for number in range(num_shards):
        shard = folder / f"{number:06d}.tar"
        if number >= DISTINCT:
            shard.hardlink_to(folder / f"{number % DISTINCT:06d}.tar")
            continue
        with tarfile.open(shard, "w") as tar:
            for index in range(shard_images):
                out = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)).save(out, "JPEG")
                info = tarfile.TarInfo(f"{index:08d}.jpg")
                info.size = out.tell()
                out.seek(0)
                tar.addfile(info, out)


def run(shards: Path, output: Path, seconds: float, batch_images: int) -> dict[str, Any]:
    """Caption the shards in this process until the time is over; tell the images done in a file beside the output."""
    from tests.benchmarks.overhead import echo_job

    job = echo_job(shards, output, ["model=standin", f"engine.batch_images={batch_images}"])
    from pipeline.errors import Interrupted
    from pipeline.flow.driver import run_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.progress import Snapshot
    from pipeline.flow.run_result import RunResult

    prepared, stop = prepare_job(job), threading.Event()
    outcome, began = RunResult.of(prepared), time.monotonic()
    counter = os.open(_counter(output), os.O_CREAT | os.O_WRONLY)
    timer = threading.Timer(seconds, stop.set)
    timer.daemon = True
    timer.start()

    def tell(now: Snapshot) -> None:
        # Always the same number of bytes, so that no reader finds half of a number.
        os.pwrite(counter, b"%020d" % now.images_done, 0)

    with suppress(Interrupted):
        run_job(prepared, outcome, tell, stop)
    return {"images": outcome.images_captioned, "seconds": time.monotonic() - began, "stopped": stop.is_set()}


def _counter(output: Path) -> Path:
    return output.with_suffix(".images")


@dataclass
class Series:
    """One process: what it was called, and its memory by images done."""

    titles: Counter[str] = field(default_factory=Counter[str])
    points: list[tuple[float, int, float, float, float]] = field(default_factory=list)
    """Seconds, images, RSS, PSS, USS in MB."""

    @property
    def name(self) -> str:
        """What it was busiest with: Ray's workers are called IDLE between tasks."""
        named = [title for title, _ in self.titles.most_common() if title != "IDLE"]
        return named[0] if named else "IDLE"


class Sampler:
    """Reads the memory of a process and all that came from it."""

    def __init__(self, driver: int, counter: Path, file: Path) -> None:
        self._driver = psutil.Process(driver)
        self._counter = counter
        self._began = time.monotonic()
        self.processes: dict[tuple[int, float], Series] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("w", encoding="utf-8")

    def look(self) -> None:
        images = int(self._counter.read_bytes() or b"0") if self._counter.exists() else 0
        seconds = round(time.monotonic() - self._began, 1)
        for process in [self._driver, *self._driver.children(recursive=True)]:
            try:
                title = "driver" if process == self._driver else _title(process)
                memory = process.memory_full_info()
                key = (process.pid, process.create_time())
            except psutil.Error:
                continue  # it ended meanwhile
            if not memory.rss:
                continue
            point = (seconds, images, memory.rss / MB, memory.pss / MB, memory.uss / MB)
            series = self.processes.setdefault(key, Series())
            series.titles[title] += 1
            series.points.append(point)
            print(json.dumps([process.pid, title, *point]), file=self._file, flush=True)


def _title(process: psutil.Process) -> str:
    """Name a process of Ray: the class of its actor or its task, or the program."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").partition(".")[0].partition("->")[0]
    scripts = [word for word in words if word.endswith(".py")]
    return Path(scripts[0] if scripts else words[0]).name


def slope(x: Floats, y: Floats) -> float:
    """Return the median slope over all pairs of points (Theil and Sen); NaN if x does not change."""
    step = -(-len(x) // PAIRED)
    x, y = x[::step], y[::step]
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] != x[first]
    first, second = first[apart], second[apart]
    return float(np.median((y[second] - y[first]) / (x[second] - x[first]))) if len(first) else float("nan")


def row_of(series: Series, seconds: float) -> dict[str, Any] | None:
    """Return what a process grew by, in MB; None of one that did not live from the warm-up to the end."""
    points = np.array([point for point in series.points if point[0] >= WARM_UP * seconds], np.float64)
    if len(points) < 2 * QUARTERS or points[-1][0] - points[0][0] < 0.9 * (1 - WARM_UP) * seconds:
        return None
    at, million, rss, _, uss = points.T
    million = million / 1e6
    quarters = [slope(million[part], uss[part]) for part in np.array_split(np.arange(len(points)), QUARTERS)]
    return {
        "process": series.name,
        "rss_mb": float(rss[-1]),
        "uss_first_mb": float(uss[0]),
        "uss_last_mb": float(uss[-1]),
        "uss_mb_per_million": slope(million, uss),
        "rss_mb_per_million": slope(million, rss),
        "uss_mb_per_hour": slope(at / 3600, uss),
        "per_million_by_quarter": " ".join(f"{value:.1f}" for value in quarters),
    }


def total(processes: Sequence[Series]) -> Series:
    """Return the sum of all processes at each moment, PSS in place of each figure: shared pages count once."""
    sums: dict[tuple[float, int], float] = {}
    for seconds, images, _, pss, _ in (point for series in processes for point in series.points):
        sums[(seconds, images)] = sums.get((seconds, images), 0.0) + pss
    return Series(Counter({"all (PSS)": 1}), [(*moment, pss, pss, pss) for moment, pss in sorted(sums.items())])


def watch(driver: subprocess.Popen[str], sampler: Sampler, every_s: float) -> Any:
    """Sample until the driver ends; return what it said last."""
    while driver.poll() is None:
        sampler.look()
        time.sleep(every_s)
    out, err = driver.communicate()
    if driver.returncode:
        raise RuntimeError(f"the run ended with {driver.returncode}:\n{err[-3000:]}")
    return json.loads(out.splitlines()[-1])


def measure(args: argparse.Namespace, scratch: Path) -> tuple[Sampler, Any]:
    """Run the job in a process of its own beside the sampler."""
    shards, output = scratch / "shards", scratch / "output"
    shards.mkdir()
    link_shards(shards, max(DISTINCT, MOST_PER_S * args.seconds // args.shard_images), args.shard_images)
    command = [sys.executable, "-m", "tests.benchmarks.soak", "--seconds", str(args.seconds)]
    command += ["--batch-images", str(args.batch_images), "--part", str(shards), str(output)]
    with (scratch / "stderr").open("w+") as errors:
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            sampler = Sampler(driver.pid, _counter(output), args.json.with_suffix(".samples.jsonl"))
            return sampler, watch(driver, sampler, args.every_s)
        except RuntimeError:
            print((scratch / "stderr").read_text()[-3000:], file=sys.stderr)
            raise
        finally:
            driver.terminate()


def main() -> None:
    args = arguments("soak", __doc__, seconds=SECONDS, every_s=5, shard_images=1000, batch_images=32)
    if args.part:
        print(json.dumps(run(Path(args.part[0]), Path(args.part[1]), args.seconds, args.batch_images)))
        return
    print(f"this takes {args.seconds / 60:.0f} minutes and a little more; --seconds S for another length", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        sampler, done = measure(args, Path(scratch))
    # The end drains and shuts down, which is no growth.
    seconds = min(args.seconds, done["seconds"])
    for series in sampler.processes.values():
        series.points = [point for point in series.points if point[0] <= seconds]
    everything = [*sampler.processes.values(), total(list(sampler.processes.values()))]
    rows = [row for series in everything if (row := row_of(series, seconds))]
    rows.sort(key=lambda row: row["process"])
    publish(
        args,
        rows,
        {
            "images": done["images"],
            "seconds": round(done["seconds"]),
            "images/s": round(done["images"] / done["seconds"]),
            "shards ran out": not done["stopped"],
            "driver, MB per million images": next(
                (round(row["uss_mb_per_million"], 2) for row in rows if row["process"] == "driver"), None
            ),
            "processes that came and went": len(everything) - len(rows),
        },
    )


if __name__ == "__main__":
    main()
