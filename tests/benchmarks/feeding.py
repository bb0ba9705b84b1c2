"""What share of `max_num_seqs` an engine works on: batch by batch as before, and image by image; then with vLLM.

`python -m tests.benchmarks.feeding [--requests N] [--rounds R] [--base CHECKOUT]`. First an engine with drawn lengths
(lognormal, median 110 tokens, at most 300, 3 % of the answers retried) in virtual time, the size of an H100's: 256
requests. `mixed` is four slots of 180, 60, 30 and 100 tokens. Then the stand-in on vLLM's CPU build with 64 requests,
whose captions have the lengths that it gives them, without retries; vLLM's own number of running requests at each of
its steps, in the middle of the run. With --base the same with another checkout of this repository. With --rounds 0
there is no vLLM.
"""

import argparse
import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
RUN_FILE = "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
"""Runs a file of this checkout with the modules of the current folder."""
NUM_SEQS = 256
MIXED = (180, 60, 30, 100)
CASES = {"k=1": (1, (110,)), "k=4": (4, (110,)), "k=4, mixed": (4, MIXED)}
NUM_BATCHES = 60
SLOTS = (1, 4)


async def batch_by_batch(engine: Any, num_slots: int, batch_images: int, num_batches: int) -> None:
    """As before: a batch ends with its slowest caption, then come its retries; twice `num_seqs` in flight."""
    in_flight = asyncio.Semaphore(max(2, math.ceil(2 * engine.num_seqs / (batch_images * num_slots))))

    async def run_batch() -> None:
        async with in_flight:
            slots = [slot for _ in range(batch_images) for slot in range(num_slots)]
            for _ in range(3):
                await asyncio.gather(*map(engine.answer, slots))
                slots = [slot for slot in slots if engine.rejects()]

    await asyncio.gather(*(run_batch() for _ in range(num_batches)))


def drawn() -> list[dict[str, Any]]:
    from tests.stages.drawn_engine import DrawnEngine, caption
    from tests.virtual_time import run_virtually

    rows: list[dict[str, Any]] = []
    for name, (num_slots, medians) in CASES.items():
        before = DrawnEngine(NUM_SEQS, medians)
        run_virtually(_in_loop(before, batch_by_batch(before, num_slots, 64, NUM_BATCHES)))
        rows.append({"engine": "drawn", "case": name, "way": "by batch", "busy": before.mean_running() / NUM_SEQS})
        for batch_images in (64, 256):
            engine = DrawnEngine(NUM_SEQS, medians)
            num_batches = NUM_BATCHES * 64 // batch_images
            run_virtually(_in_loop(engine, caption(engine, num_slots, batch_images, num_batches)))
            busy, unstaged = engine.mean_running() / NUM_SEQS, engine.most_unstaged / NUM_SEQS
            way = f"by image, batches of {batch_images}"
            rows.append({"engine": "drawn", "case": name, "way": way, "busy": busy, "unstaged": unstaged})
    return rows


async def _in_loop(engine: Any, work: Any) -> None:
    await work
    assert not engine.running


def with_vllm(num_requests: int, rounds: int) -> list[dict[str, Any]]:
    """Feed vLLM as the checkout whose modules are imported does."""
    from pipeline.config import EngineConfig, ModelConfig, SamplingConfig
    from pipeline.engines import EngineSpec
    from pipeline.engines.factory import _prepare_process
    from pipeline.models import FAMILIES
    from pipeline.recipe import find_weights

    weights = find_weights(ModelConfig(id="standin"))
    spec = EngineSpec(
        config=EngineConfig(max_model_len=768),
        sampling=SamplingConfig(),
        max_tokens=300,
        model_path=weights.path,
        revision=None,
        family="joycaption",
        geometry=FAMILIES["joycaption"].geometry_of(weights.stated),
    )
    _prepare_process(spec.config)
    from pipeline.engines import vllm as door

    running: list[int] = []

    class Recorded(door._Stats):
        @property
        def levels(self) -> dict[str, Any]:
            return {"requests_running": running[-1] if running else 0}

        @levels.setter
        def levels(self, levels: dict[str, Any]) -> None:
            running.append(levels.get("requests_running", 0))

    door._Stats = Recorded
    return asyncio.run(_measured(door.VllmEngine(spec), running, num_requests, rounds))


async def _measured(engine: Any, running: list[int], num_requests: int, rounds: int) -> list[dict[str, Any]]:
    from tests.benchmarks.slots import drawn as pictures_of

    side, num_seqs = engine._tokens.geometry.width_px, engine._size.max_num_seqs
    pictures = pictures_of(num_requests, side)
    rows = []
    for number in range(rounds):
        for k in SLOTS:
            stage, in_flight, tables = _fed(engine, k, pictures[: num_requests // k], f"pass {k} {number}")
            free, unstaged = asyncio.Semaphore(in_flight), [0]

            async def caption(table: Any, stage: Any = stage, free: Any = free) -> None:
                async with free:
                    await stage(table)

            async def watch(stage: Any = stage, unstaged: list[int] = unstaged) -> None:
                window = getattr(stage._captioner, "window", None)
                while window is not None:
                    unstaged.append(window.num_unstaged)
                    await asyncio.sleep(0.02)

            watching = asyncio.create_task(watch())
            running.clear()
            began = asyncio.get_running_loop().time()
            await asyncio.gather(*map(caption, tables))
            seconds = asyncio.get_running_loop().time() - began
            watching.cancel()
            middle = running[len(running) // 5 : -len(running) // 3]
            rows.append(
                {
                    "engine": "vllm",
                    "case": f"k={k}",
                    "way": f"{in_flight} batches of {len(tables[0]['images'][0])}",
                    "busy": statistics.mean(middle) / num_seqs,
                    "unstaged": max(unstaged) / num_seqs,
                    "captions_per_s": num_requests / seconds,
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    engine.close()
    return rows


def _fed(engine: Any, k: int, pictures: list[Any], name: str) -> tuple[Any, int, list[Any]]:
    """The stage, how many batches a replica has in flight, and all batches, as the checkout has them."""
    from pipeline.ledger.footer import RunIdentity
    from pipeline.stages.captioning import Caption, CaptionSpec
    from tests.benchmarks.gpu import _job, batch_tables
    from tests.memory_store import MemoryStore

    job, side, num_seqs = _job(k), engine._tokens.geometry.width_px, engine._size.max_num_seqs
    run = RunIdentity(recipe="benchmark", slots=tuple(slot.slot for slot in job.captions), versions={})
    spec, store = CaptionSpec(job=job, run=run), MemoryStore(f"memory://{uuid.uuid4().hex}")
    try:
        from pipeline.engines.batch_plan import plan_batches
    except ModuleNotFoundError:
        # A checkout that feeds batch by batch: as its `pipeline.flow.ray_dataset.batches_in_flight`.
        in_flight = max(2, math.ceil(2 * num_seqs / (job.engine.batch_images * k)))
        return Caption(spec, engine, store), in_flight, batch_tables(name, pictures, side)
    plan = plan_batches(job.engine, num_seqs, side * side, k)
    tables = batch_tables(name, pictures, side, plan.grown_images)
    return Caption(spec, engine, store, num_seqs), plan.in_flight, tables


def _in_process(checkout: Path, requests: int, rounds: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", RUN_FILE, str(Path(__file__).resolve()), "--requests", str(requests)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, "--rounds", str(rounds), "--part", "vllm"],
        cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{checkout}: ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.feeding", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=1920, help="of each case with vLLM")
    parser.add_argument("--rounds", type=int, default=1, help="with vLLM")
    parser.add_argument("--base", type=Path, help="another checkout, for comparison")
    parser.add_argument("--json", type=Path, default=Path("out/bench/feeding.json"))
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        rows = with_vllm(args.requests, args.rounds)
        print(json.dumps(rows))
        return
    from tests.benchmarks.report import publish

    rows = drawn()
    checkouts = {"this": HERE, **({"base": args.base.resolve()} if args.base else {})}
    for name, checkout in checkouts.items() if args.rounds else ():
        rows += [{**row, "checkout": name} for row in _in_process(checkout, args.requests, args.rounds)]
    publish(args, rows, {})


if __name__ == "__main__":
    main()
