"""CPU per image of shard -> decode -> echo engine -> committed Parquet, against a plain Pillow loop, in one run.

`python -m tests.benchmarks.overhead [--images N] [--rounds R]`. The loop reads the same tar files
with `tarfile` and does what decoding must: open, RGB, LANCZOS, 384 x 384, on every core at once. CPU
of the pipeline is that of the driver and all of Ray's processes, between 30 and 95 % of the images:
what a run costs once (Ray's start, imports of the workers) is reported apart, in `cpu_with_start`. Rounds
alternate, so that noise hits both.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tests.benchmarks.report import arguments, median, publish

SIDE_PX = 512
"""Of the drawn JPEGs, about 100 kB each, as in the peers' figures of 265 images/s for the plain loop."""
SHARD_IMAGES = 500


def draw_shards(folder: Path, num_images: int) -> None:
    """Write tar shards of JPEGs of smooth noise."""
    rng = np.random.default_rng(0)
    jpegs = [_jpeg(rng) for _ in range(50)]
    for first in range(0, num_images, SHARD_IMAGES):
        with tarfile.open(folder / f"{first // SHARD_IMAGES:05d}.tar", "w") as tar:
            for index in range(first, min(num_images, first + SHARD_IMAGES)):
                data = jpegs[index % len(jpegs)]
                info = tarfile.TarInfo(f"{index:08d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _jpeg(rng: np.random.Generator) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).resize((SIDE_PX, SIDE_PX))
    grain = rng.integers(-28, 29, (SIDE_PX, SIDE_PX, 3))
    pixels = np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=80)
    return out.getvalue()


def pillow_loop(folder: Path) -> float:
    """Return CPU seconds per image of the plain loop."""
    started, images = time.process_time(), 0
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                image = Image.open(io.BytesIO(file.read())).convert("RGB").resize((384, 384), Image.Resampling.LANCZOS)
                np.asarray(image)
                images += 1
    return (time.process_time() - started) / images


@dataclass
class Meter:
    """CPU seconds of this process and all that came from it, by the number of images done."""

    seen: dict[int, float] = field(default_factory=dict)
    points: list[tuple[int, float, float]] = field(default_factory=list)

    def look(self, images_done: int) -> None:
        # A look at all processes takes some 20 ms itself, which counts as the driver's.
        if self.points and time.monotonic() - self.points[-1][2] < 1.0:
            return
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            self.seen[process.pid] = times.user + times.system
        self.points.append((images_done, sum(self.seen.values()), time.monotonic()))

    def middle(self, num_images: int) -> tuple[float, float]:
        """Return CPU seconds and wall seconds per image between 30 and 95 % of the images."""
        inside = [point for point in self.points if 0.3 * num_images <= point[0] <= 0.95 * num_images]
        (first, cpu_first, at_first), (last, cpu_last, at_last) = inside[0], inside[-1]
        return (cpu_last - cpu_first) / (last - first), (at_last - at_first) / (last - first)


def echo_job(folder: Path, output: Path, extra: list[str]) -> Any:
    """Return the job of the shards with the echo engine, and prepare this process for its Ray."""
    from pipeline.config import parse_job
    from pipeline.flow.ray_env import prepare_ray_env

    job = parse_job(
        {
            "source": str(folder),
            "output": str(output),
            "model": "fancyfeast/llama-joycaption-beta-one-hf-llava",
            "captions": [{"slot": "long", "mode": "descriptive"}],
            "engine": {"kind": "echo"},
        },
        extra,
    )
    prepare_ray_env(job.cluster)
    return job


def run_pipeline(folder: Path, output: Path, num_images: int, extra: list[str]) -> dict[str, float]:
    """Caption the shards with the echo engine; return CPU and wall seconds per image."""
    job = echo_job(folder, output, extra)
    import threading

    from pipeline.flow.driver import run_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.run_result import RunResult

    prepared, meter = prepare_job(job), Meter()
    outcome = RunResult.of(prepared)
    run_job(prepared, outcome, lambda snapshot: meter.look(snapshot.images_done), threading.Event())
    assert outcome.statuses["ok"] == num_images, outcome
    cpu, wall = meter.middle(num_images)
    total = meter.points[-1][1] / num_images
    return {"cpu_s": cpu, "wall_s": wall, "cpu_with_start_s": total}


def main() -> None:
    args = arguments("overhead", __doc__, images=6000, rounds=3)
    if args.part:
        what, shards, output, *extra = args.part
        figures = (
            run_pipeline(Path(shards), Path(output), args.images, extra)
            if what == "pipeline"
            else pillow_loop(Path(shards))
        )
        print(json.dumps(figures))
        return
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch, "shards")
        shards.mkdir()
        draw_shards(shards, args.images)
        for number in range(args.rounds):
            rows.append(_round(shards, Path(scratch, f"out{number}"), args))
            print(rows[-1], flush=True)
    publish(args, rows, {"CPU per image, pipeline to Pillow loop, median": median([row["ratio"] for row in rows])})


def _round(shards: Path, output: Path, args: argparse.Namespace) -> dict[str, float]:
    """One loop per core at once, as the pipeline has one reader per core, then the pipeline; ms per image."""
    loops = [_part("loop", shards, output, args) for _ in range(os.cpu_count() or 1)]
    loop_s = statistics.mean(_result(loop) for loop in loops)
    figures = _result(_part("pipeline", shards, output, args))
    in_ms = {f"{name.removesuffix('_s')}_ms": value * 1000 for name, value in figures.items()}
    return {"loop_ms": loop_s * 1000, **in_ms, "ratio": figures["cpu_s"] / loop_s}


def _part(what: str, shards: Path, output: Path, args: argparse.Namespace) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.overhead", "--images", str(args.images)]
    command += ["--part", what, str(shards), str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _result(part: subprocess.Popen[str]) -> Any:
    out, _ = part.communicate()
    if part.returncode:
        raise RuntimeError(f"{part.args} ended with {part.returncode}")
    return json.loads(out.splitlines()[-1])


if __name__ == "__main__":
    main()
