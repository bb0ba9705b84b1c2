"""A fleet in a box: 8, 24 and 64 replicas whose engines take as long as with a GPU, some slow, some dying.

`python -m tests.benchmarks.fleet [--seconds S] [--replicas N ...]`. Ray's own test cluster on this machine, eight
fake GPUs a node; nothing is simulated but the engines (`fleet_engine`), so the readers, the object stores, the
actors, the driver and its commits are those of a run. Measured between 20 and 95 % of the images: what share of their
requests the engines work on, CPU an image by kind of process, and the most memory of each kind. The extrapolation is
to 1,000 such replicas.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.report import FOLDER, Row, part, publish

REPLICAS = (8, 24, 64)
GPUS_PER_NODE = 8
STORE_MIB = 400
"""Of a node: eight replicas with four batches of 128 images of 90 x 90 px each take 100."""
SHARD_IMAGES = 1000
IMAGES_PER_S = 6.0
"""Of a replica, see `fleet_engine`."""
SAMPLE_S = 2.0
GPUS = 1000


def run(shards: Path, output: Path, num_images: int, replicas: int, nodes: int) -> dict[str, Any]:
    from pipeline.config import parse_job
    from pipeline.flow.ray_env import prepare_ray_env

    job = parse_job(
        {
            "source": str(shards),
            "output": str(output),
            "model": "standin",
            "captions": [{"slot": "long", "mode": "descriptive"}],
            "engine": {"kind": "echo", "replicas": replicas, "num_gpus": 1},
            "quality": {"retry": {"attempts": 0}},
        },
        [],
    )
    prepare_ray_env(job.cluster)
    from pipeline.flow import driver as flow
    from pipeline.flow import ray_dataset
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.progress_actor import read_detail
    from tests.benchmarks.by_kind import ByKind
    from tests.benchmarks.fleet_engine import NUM_SEQS, FleetCaptionActor

    ray_dataset.CaptionActor = FleetCaptionActor
    ray_dataset.seqs_to_feed = lambda *_, **__: NUM_SEQS
    handles: list[Any] = []
    start = flow.start_progress_actor
    flow.start_progress_actor = lambda: handles.append(start()) or handles[-1]
    prepared, meter = prepare_job(job), ByKind(os.getpid(), nodes)
    outcome, shares = flow.RunResult.of(prepared), list[tuple[int, float]]()
    sampled_at = 0.0

    def look(now: Any) -> None:
        nonlocal sampled_at
        meter.look(now.images_done)
        if time.monotonic() - sampled_at < SAMPLE_S or not handles:
            return
        sampled_at = time.monotonic()
        detail = read_detail(handles[0])
        if detail is not None:
            running = sum(replica.stats.engine.requests_running for replica in detail.replicas.values())
            shares.append((now.images_done, running / (replicas * NUM_SEQS)))

    flow.run_job(prepared, outcome, look, threading.Event())
    assert outcome.statuses["ok"] == num_images, outcome
    middle = meter.middle(num_images)
    inside = [share for images, share in shares if 0.2 * num_images <= images <= 0.95 * num_images]
    return {
        "replicas": replicas,
        "images": num_images,
        "engines_busy": statistics.mean(inside),
        "engines_busy_least": min(inside),
        "images_per_s": middle.pop("images_per_s"),
        **{f"ms {kind}": value for kind, value in middle.items()},
        **{f"MiB {kind}": value for kind, value in meter.peak_mib().items()},
    }


def extrapolated(rows: Sequence[Row]) -> dict[str, float]:
    """Return the cores that each kind of process needs for a thousand replicas, by a line through those of all sizes.

    Each replica answers `IMAGES_PER_S`. What more images a second cost is measured by `driver`.
    """
    sizes = [row["replicas"] for row in rows]
    cores: dict[str, float] = {}
    for kind in ("driver", "progress_actor", "committer", "gcs"):
        used = [row.get(f"ms {kind}", 0.0) * row["images_per_s"] / 1000 for row in rows]
        slope, constant = statistics.linear_regression(sizes, used)
        cores[kind] = round(constant + slope * GPUS, 2)
    return cores


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.fleet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=120, help="of each size, as far as the machine keeps up")
    parser.add_argument("--replicas", type=int, nargs="+", default=REPLICAS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, default=FOLDER / "fleet.json")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        shards, output, replicas, nodes = args.part
        print(json.dumps(run(Path(shards), Path(output), args.images, int(replicas), int(nodes))))
        return
    from tests.benchmarks.soak import link_shards
    from tests.nodes import nodes

    rows: list[dict[str, Any]] = []
    for replicas in args.replicas:
        num_shards = max(4, round(replicas * IMAGES_PER_S * args.seconds / SHARD_IMAGES))
        num_nodes = -(-replicas // GPUS_PER_NODE)
        with (
            tempfile.TemporaryDirectory() as scratch,
            nodes(num_nodes, gpus=GPUS_PER_NODE, cpus=1, store_mib=STORE_MIB) as cluster,
        ):
            shards = Path(scratch, "shards")
            shards.mkdir()
            link_shards(shards, num_shards, SHARD_IMAGES)
            os.environ.update(cluster.environment)
            words = (shards, Path(scratch, "out"), replicas, cluster.process.pid)
            rows.append(part("fleet", *words, images=num_shards * SHARD_IMAGES))
            print(json.dumps(rows[-1]), flush=True)
    summary = {f"cores for {GPUS:,} GPUs at {IMAGES_PER_S} images/s each": extrapolated(rows)} if len(rows) > 1 else {}
    publish(args, rows, summary)


if __name__ == "__main__":
    main()
