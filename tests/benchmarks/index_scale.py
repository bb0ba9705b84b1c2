"""An index of many small images on Ray: rates with and without perceptual hashes, peak memory, and a kill.

`python -m tests.benchmarks.index_scale [--images N]`. Draws N images of 256 x 192 px as JPEG, 1,000 to a tar, and
indexes them three times in processes of their own: by header and SHA-256, with the perceptual hash too, and with the
perceptual hash in a run whose processes are all killed when a third of the shards are committed, and that is then
started again. Every index is verified: each image once. Memory is the sum of the resident memory of the driver and its
Ray, without shared pages (USS), sampled every 0.2 s.
"""

import io
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from tests.benchmarks.report import arguments, publish

SHARD_IMAGES = 1000
SAMPLE_S = 0.2
SIZE = (256, 192)
BASES = 64
"""Pictures that are drawn; the others are copies with a mark of their own, since drawing is slower than indexing."""


def draw(folder: Path, num_images: int) -> None:
    """Write the tars: each image differs from all others."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (BASES, 6, 8, 3), dtype=np.uint8)
    bases = [Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC) for pixels in small]
    for first in range(0, num_images, SHARD_IMAGES):
        with tarfile.open(folder / f"{first // SHARD_IMAGES:05d}.tar", "w") as tar:
            for number in range(first, min(first + SHARD_IMAGES, num_images)):
                data = _jpeg(bases[number % BASES], number)
                info = tarfile.TarInfo(f"{number:08d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _jpeg(base: Image.Image, number: int) -> bytes:
    buffer = io.BytesIO()
    # The number in the file's comment: other bytes, and the pixels stay similar.
    base.save(buffer, "JPEG", quality=80, comment=f"{number}".encode())
    return buffer.getvalue()


class Peak:
    """The highest memory of a process and all below it, in MiB."""

    def __init__(self) -> None:
        self.total = self.driver = self.worker = 0.0

    def look(self, pid: int) -> None:
        try:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        sizes = [(process.pid, _uss(process)) for process in processes]
        self.total = max(self.total, sum(size for _, size in sizes))
        self.driver = max(self.driver, sizes[0][1])
        workers = [size for process, size in sizes[1:] if _is_worker(process)]
        self.worker = max(self.worker, *workers, 0.0)


def _uss(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().uss / 2**20
    except psutil.Error:
        return 0.0


def _is_worker(pid: int) -> bool:
    try:
        return "ray::MapWorker" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def index(shards: Path, output: Path, hashes: str, until: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Run the verb; kill all of its processes when `until` is true."""
    words = [sys.executable, "-m", "jobs", "index", str(shards), str(output), "--hash", hashes]
    began, peak = time.monotonic(), Peak()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak.look(process.pid)
        if until is not None and until():
            for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                each.send_signal(signal.SIGKILL)
            break
        time.sleep(SAMPLE_S)
    out, err = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"index ended with {process.returncode}:\n{err[-3000:]}")
    return {
        "seconds": time.monotonic() - began,
        "line": next((line for line in out.splitlines() if line.startswith("this run")), "killed"),
        "peak_mib": peak.total,
        "driver_mib": peak.driver,
        "worker_mib": peak.worker,
    }


def verified(output: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "verify", str(output)], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def main() -> None:
    args = arguments("index_scale", __doc__, images=100_000)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        draw(folder / "in", args.images)
        num_shards = -(-args.images // SHARD_IMAGES)
        for what, hashes in (("header, sha256", "sha256"), ("sha256, phash", "sha256,phash")):
            rows.append({"index": what, **_figures(index(folder / "in", folder / hashes, hashes), args.images)})
            print(rows[-1], verified(folder / hashes), flush=True)
        output = folder / "killed"
        third = num_shards // 3
        killed = index(folder / "in", output, "sha256,phash", lambda: _committed(output) >= third)
        left = num_shards - _committed(output)
        rows.append({"index": "killed at a third", "shards_left": left, "seconds": killed["seconds"]})
        again = index(folder / "in", output, "sha256,phash")
        images_left = left * SHARD_IMAGES - (num_shards * SHARD_IMAGES - args.images)
        rows.append({"index": "resumed", "shards_left": left, **_figures(again, images_left)})
        print(verified(output), flush=True)
    publish(args, rows, {"images": args.images, "verified": "each index: every image exactly once"})


def _committed(output: Path) -> int:
    return len(list((output / "index").glob("*.parquet")))


def _figures(run: dict[str, Any], num_images: int) -> dict[str, Any]:
    return {"images": num_images, "images_per_s": num_images / run["seconds"], **run}


if __name__ == "__main__":
    main()
