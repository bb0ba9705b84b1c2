"""What a run costs as it grows: images a second, driver memory and CPU at 1x, 4x and 16x images, and bookkeeping alone.

`python -m tests.benchmarks.growth [--images N] [--shards S]`. The runs use the echo engine. The bookkeeping is the
driver's own, fed with receipts as they would come from S shards of 1,000 images, 64 shards open at a time:
plan written and read, receipts counted, progress reported; no images, no Ray.
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.overhead import SHARD_IMAGES, draw_shards
from tests.benchmarks.report import Cpu, Middle, arguments, part, publish

FACTORS = (1, 4, 16)
SHARD_ROWS = 1000
BATCH_ROWS = 64
OPEN = 64
"""Shards read at once, as on a cluster of 64 CPUs."""
STEPS = 10


def run(shards: Path, output: Path, num_images: int) -> dict[str, float]:
    """One job with the echo engine in this process; rate, and what its driver took."""
    from tests.benchmarks.overhead import echo_job

    job = echo_job(shards, output, [])
    import threading

    from pipeline.flow.driver import run_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.run_result import RunResult

    prepared, middle, cpu = prepare_job(job), Middle(num_images), Cpu()
    outcome, began, own = RunResult.of(prepared), time.monotonic(), time.process_time()
    run_job(
        prepared, outcome, lambda now: middle.look(now.images_done, time.monotonic(), cpu.seconds()), threading.Event()
    )
    seconds, driver_s = time.monotonic() - began, time.process_time() - own
    return {
        "images": num_images,
        "shards": -(-num_images // SHARD_IMAGES),
        "images_per_s": middle.rate()["per_s"],
        "cpu_ms_per_image": middle.rate()["cpu_ms"],
        "seconds": seconds,
        "driver_cpu_s": driver_s,
        "driver_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def bookkeeping(folder: Path, num_shards: int) -> list[dict[str, float]]:
    """Feed the driver's bookkeeping; figures for each tenth of the shards."""
    from pipeline.flow.progress import Progress
    from pipeline.flow.progress_actor import Counts
    from pipeline.flow.shard_task import ShardTask
    from pipeline.ledger.shard_plan import claim_plan, remaining
    from pipeline.ledger.shard_tracker import ShardTracker
    from pipeline.storage import open_store
    from schemas.shard import Shard

    me = psutil.Process()
    before, began = me.memory_info().rss, time.process_time()
    store = open_store(str(folder))
    shards = [
        Shard(f"{n // 1000:03d}/{n:06d}.tar", f"s3://photos/{n:06d}.tar", 10**8, f"e{n}") for n in range(num_shards)
    ]
    plan = claim_plan(store, shards)
    left = remaining(store, claim_plan(store, shards))
    works = {path: ShardTask(plan.shards[path], fragments) for path, fragments in left.fragments.items()}
    counted = ShardTracker()
    sizes = {work.shard.path: work.shard.size for work in works.values()}
    progress = Progress(
        shards=num_shards, bytes_total=sum(sizes.values()), bytes_before=0, shards_before=0, _sizes=sizes
    )
    rows = [_row(0, 0, time.process_time() - began, me.memory_info().rss - before)]
    paths, step = list(works), num_shards // STEPS
    for first in range(0, num_shards, step):
        now, done = time.process_time(), 0
        for at in range(first, min(num_shards, first + step), OPEN):
            done += _drive(paths[at : min(at + OPEN, first + step)], works, counted, progress)
            progress.now(Counts())
        rows.append(_row(first + step, done, time.process_time() - now, me.memory_info().rss - before))
    return rows


def _row(shards: int, done: int, cpu_s: float, grown: float) -> dict[str, float]:
    per = {"cpu_ms_per_1000_shards": cpu_s / done * 1e6} if done else {"planning_cpu_s": cpu_s}
    return {"shards": shards, **per, "grown_mib": grown / 2**20}


def _drive(paths: list[str], works: Any, counted: Any, progress: Any) -> int:
    """Receipts of these shards in turn, batch by batch; returns the shards that came whole."""
    from pipeline.ledger.shard_tracker import Receipt
    from schemas.batch import BatchKind

    done = 0
    for start in range(0, SHARD_ROWS, BATCH_ROWS):
        rows = list(range(start, min(SHARD_ROWS, start + BATCH_ROWS)))
        for path in paths:
            row = {
                "kind": BatchKind.IMAGES.value,
                "shard": path,
                "num_images": SHARD_ROWS,
                "fragment": f"staging/{path}/{start:08d}-0123456789abcdef0123456789abcdef.parquet",
                "rows": rows,
                "statuses": [("ok", len(rows))],
                "message": None,
                "error": None,
            }
            receipt = Receipt.from_row(row)
            complete = counted.add(receipt)
            progress.add_receipt(receipt)
            if complete is not None:
                progress.end_shard(works[path].shard)
                done += 1
    return done


def main() -> None:
    args = arguments("growth", __doc__, images=1500, shards=30_000)
    if args.part:
        what, *words = args.part
        if what == "run":
            print(json.dumps(run(Path(words[0]), Path(words[1]), args.images)))
        else:
            print(json.dumps(bookkeeping(Path(words[0]), args.shards)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for factor in FACTORS:
            images = factor * args.images
            shards = Path(folder, f"in{factor}")
            shards.mkdir()
            draw_shards(shards, images)
            rows.append(part("growth", "run", shards, Path(folder, f"out{factor}"), images=images))
            print(rows[-1], flush=True)
        kept = part("growth", "bookkeeping", Path(folder, "book"), shards=args.shards)
    last, first = kept[-1], kept[1]
    summary = {
        "driver memory at 16x, to that at 1x": round(rows[-1]["driver_peak_mib"] / rows[0]["driver_peak_mib"], 2),
        "images/s at 16x, to those at 1x": round(rows[-1]["images_per_s"] / rows[0]["images_per_s"], 2),
        f"bookkeeping of {args.shards} shards, MiB": round(last["grown_mib"], 1),
        "of it per 1,000 shards, MiB": round(1000 * last["grown_mib"] / args.shards, 2),
        "CPU per 1,000 shards, ms, first and last tenth": [
            round(row["cpu_ms_per_1000_shards"]) for row in (first, last)
        ],
        "planning, CPU s": round(kept[0]["planning_cpu_s"], 2),
    }
    publish(args, [*rows, *kept], summary)


if __name__ == "__main__":
    main()
