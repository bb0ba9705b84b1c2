"""A fleet in a box: 8, 24 and 64 replicas whose engines take as long as with a GPU, some slow, some dying.

`python -m tests.benchmarks.fleet [--seconds S] [--replicas N ...]`. Ray's own test cluster on this machine, eight
fake GPUs a node; nothing is simulated but the engines (`fleet_engine`), so the readers, the object stores, the
actors, the driver and its commits are those of a run. Measured between 20 and 95 % of the images: what share of their
requests the engines work on, CPU an image by kind of process, and the most memory of each kind. The extrapolation is
to 1,000 GPUs at 30 images a second each.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.report import FOLDER, part, publish

REPLICAS = (8, 24, 64)
GPUS_PER_NODE = 8
STORE_MIB = 400
"""Of a node: eight replicas with four batches of 128 images of 90 x 90 px each take 100."""
SHARD_IMAGES = 1000
IMAGES_PER_S = 6.0
"""Of a replica, see `fleet_engine`."""
SAMPLE_S = 2.0
GPUS, RATE = 1000, 30.0


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
    inside = [share for images, share in shares if 0.2 * num_images <= images <= 0.95 * num_images]
    return {
        "replicas": replicas,
        "images": num_images,
        "engines_busy": statistics.mean(inside),
        "engines_busy_least": min(inside),
        **{f"ms {kind}": value for kind, value in meter.middle(num_images).items()},
        **{f"MiB {kind}": value for kind, value in meter.peak_mib().items()},
    }


def extrapolated(row: dict[str, Any]) -> dict[str, float]:
    """Return the cores that each kind of process on the driver's node would need for a thousand GPUs."""
    kinds = ("driver", "progress_actor", "committer", "gcs")
    return {kind: round(row.get(f"ms {kind}", 0.0) * GPUS * RATE / 1000, 2) for kind in kinds}


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
    publish(args, rows, {"cores for 1,000 GPUs at 30 images/s, by the largest fleet": extrapolated(rows[-1])})


if __name__ == "__main__":
    main()
