"""What share of `max_num_seqs` an engine works on: batch by batch as before, and image by image; then with vLLM.

`python -m tests.benchmarks.feeding [--images N] [--rounds R]`. First an engine with drawn lengths (lognormal, median
110 tokens, at most 300, 3 % of the answers retried) in virtual time, the size of an H100's: 256 requests. `mixed` is
four slots of 180, 60, 30 and 100 tokens. Then the stand-in on vLLM's CPU build with 64 requests, whose captions have
the lengths that it gives them; vLLM's own number of running requests at each of its steps, in the middle of the run.
With --rounds 0 there is no vLLM.
"""

import asyncio
import itertools
import math
import statistics
import uuid
from typing import Any

from tests.benchmarks.report import arguments, publish
from tests.stages.drawn_engine import DrawnEngine, caption
from tests.virtual_time import run_virtually

NUM_SEQS = 256
MIXED = (180, 60, 30, 100)
CASES = {"k=1": (1, (110,)), "k=4": (4, (110,)), "k=4, mixed": (4, MIXED)}
NUM_BATCHES = 60


async def batch_by_batch(engine: DrawnEngine, num_slots: int, batch_images: int, num_batches: int) -> None:
    """As until now: a batch ends with its slowest caption, then come its retries; twice `num_seqs` in flight."""
    in_flight = asyncio.Semaphore(max(2, math.ceil(2 * engine.num_seqs / (batch_images * num_slots))))

    async def one() -> None:
        async with in_flight:
            slots = [slot for _ in range(batch_images) for slot in range(num_slots)]
            for _ in range(3):
                await asyncio.gather(*map(engine.answer, slots))
                slots = [slot for slot in slots if engine.rejects()]

    await asyncio.gather(*(one() for _ in range(num_batches)))


def drawn() -> list[dict[str, Any]]:
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


async def _in_loop(engine: DrawnEngine, work: Any) -> None:
    await work
    assert not engine.running


def with_vllm(args: Any) -> list[dict[str, Any]]:
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
    return asyncio.run(_measured(door.VllmEngine(spec), running, args))


async def _measured(engine: Any, running: list[int], args: Any) -> list[dict[str, Any]]:
    from pipeline.engines.batch_plan import batches_to_feed
    from pipeline.ledger.footer import RunIdentity
    from pipeline.stages.captioning import Caption, CaptionSpec
    from tests.benchmarks.gpu import _job, batch_tables
    from tests.benchmarks.slots import drawn as pictures_of
    from tests.memory_store import MemoryStore

    num_seqs = engine.stats().max_num_seqs
    pictures = pictures_of(args.images, engine._tokens.geometry.width_px)
    rows = []
    for k, number in itertools.product((1, 4), range(args.rounds)):
        tables = batch_tables(f"pass {k} {number}", pictures[: args.images // k], engine._tokens.geometry.width_px)
        job = _job(k)
        run = RunIdentity(recipe="benchmark", slots=tuple(slot.slot for slot in job.captions), versions={})
        store = MemoryStore(f"memory://{uuid.uuid4().hex}")
        stage = Caption(CaptionSpec(job=job, run=run), engine, store, num_seqs)
        in_flight, unstaged = asyncio.Semaphore(batches_to_feed(num_seqs, job.engine.batch_images, k)), [0]

        async def one(table: Any, stage: Any = stage, in_flight: Any = in_flight, unstaged: Any = unstaged) -> None:
            async with in_flight:
                await stage(table)

        async def watch(stage: Any = stage, unstaged: Any = unstaged) -> None:
            while True:
                unstaged.append(stage._captioner.window.num_unstaged)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        running.clear()
        await asyncio.gather(*map(one, tables))
        watching.cancel()
        middle = running[len(running) // 5 : -len(running) // 3]
        rows.append(
            {
                "engine": "vllm",
                "case": f"k={k}",
                "way": "by image, batches of 64",
                "busy": statistics.mean(middle) / num_seqs,
                "unstaged": max(unstaged) / num_seqs,
            }
        )
        print(rows[-1], flush=True)
    engine.close()
    return rows


def main() -> None:
    args = arguments("feeding", __doc__, images=960, rounds=1)
    rows = drawn()
    if args.rounds:
        rows += with_vllm(args)
    publish(args, rows, {})


if __name__ == "__main__":
    main()
