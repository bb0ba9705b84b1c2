"""CPU an image of each kind of process while engines cost nothing: what a driver can do with 2, 24 and 64 replicas.

`python -m tests.benchmarks.driver [--images N] [--rounds R] [--base CHECKOUT]`. Echo engines that answer at once, the
stand-in's 90 x 90 px, shards of 1,000 tiny JPEGs, batches as the defaults make them. CPU is counted between 20 and 95 %
of the images, so neither start nor end enters. With --base the same is run with another checkout of this repository,
in the same environment and in alternating order.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
RUN_FILE = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
"""Runs a file of this checkout with the modules of the current folder."""
REPLICAS = (2, 24, 64)
SHARD_IMAGES = 1000


def run(shards: Path, output: Path, num_images: int, replicas: int) -> dict[str, float]:
    """Caption the shards; return CPU ms an image by kind of process, and the most memory of two of them."""
    import importlib.util
    import threading

    from tests.benchmarks.overhead import echo_job

    spec = importlib.util.spec_from_file_location("by_kind", HERE / "tests" / "benchmarks" / "by_kind.py")
    assert spec is not None
    assert spec.loader is not None
    by_kind = importlib.util.module_from_spec(spec)
    sys.modules["by_kind"] = by_kind
    spec.loader.exec_module(by_kind)
    job = echo_job(shards, output, ["model=standin", f"engine.replicas={replicas}", "cluster.object_store_gib=2"])
    from pipeline.flow.driver import run_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.run_result import RunResult

    prepared, meter = prepare_job(job), by_kind.ByKind(os.getpid())
    outcome = RunResult.of(prepared)
    run_job(prepared, outcome, lambda now: meter.look(now.images_done), threading.Event())
    assert outcome.statuses["ok"] == num_images, outcome
    peak = meter.peak_mib()
    return {**meter.middle(num_images), "driver_mib": peak["driver"], "object_store_mib": peak["object store"]}


def main() -> None:
    from tests.benchmarks.report import FOLDER, median, publish
    from tests.benchmarks.soak import link_shards

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--replicas", type=int, nargs="+", default=REPLICAS)
    parser.add_argument("--base", type=Path, help="another checkout, for comparison")
    parser.add_argument("--json", type=Path, default=FOLDER / "driver.json")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        shards, output, replicas = args.part
        print(json.dumps(run(Path(shards), Path(output), args.images, int(replicas))))
        return
    checkouts = {"this": HERE, **({"base": args.base.resolve()} if args.base else {})}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch, "shards")
        shards.mkdir()
        link_shards(shards, args.images // SHARD_IMAGES, SHARD_IMAGES)
        for number in range(args.rounds):
            for replicas in args.replicas:
                for name in list(checkouts)[:: 1 if number % 2 else -1]:
                    output = Path(scratch, f"{name}-{replicas}-{number}")
                    rows.append(
                        {"checkout": name, "replicas": replicas, **_part(checkouts[name], shards, output, args.images)}
                    )
                    print(json.dumps(rows[-1]), flush=True)
    keys = sorted({(row["replicas"], row["checkout"]) for row in rows})
    summary = {
        f"driver's CPU ms an image, {replicas} replicas, {name}": median(
            [row["driver"] for row in rows if (row["replicas"], row["checkout"]) == (replicas, name)]
        )
        for replicas, name in keys
    }
    publish(args, rows, summary)


def _part(checkout: Path, shards: Path, output: Path, images: int) -> dict[str, float]:
    replicas = output.name.split("-")[1]
    command = [sys.executable, "-c", RUN_FILE, str(Path(__file__).resolve()), "--images", str(images)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--part", str(shards), str(output), replicas],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{checkout}: {output.name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
