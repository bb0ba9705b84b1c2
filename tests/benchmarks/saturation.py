"""Captions a second of the whole pipeline with vLLM against vLLM alone, fed from memory with the same inputs.

`python -m tests.benchmarks.saturation [--images N] [--rounds R]`. The bare engine gets what the pipeline would ask
(same pixels, words, seeds and sampling, as many requests in flight) as ordinary prompts with an image, in
vLLM's own defaults but for what the CPU build needs to run at all. Both are timed between 20 and 95 % of the
images, so that neither start counts. Rounds alternate.
"""

import asyncio
import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.report import Cpu, Middle, arguments, median, part, publish

IN_FLIGHT = 128
"""Requests: what the pipeline keeps in flight for an engine of 64."""


def job_of(shards: Path, output: Path, engine: dict[str, Any] | None = None) -> Any:
    from pipeline.config import parse_job

    data = {
        "source": str(shards),
        "output": str(output),
        "model": "standin",
        "captions": [{"slot": "long", "mode": "descriptive", "length": "long"}],
        "engine": {"max_model_len": 768, **(engine or {})},
        "quality": {"retry": {"attempts": 0}},
        "cluster": {"object_store_gib": 0.6},
    }
    return parse_job(data)


def pipeline(shards: Path, output: Path, num_images: int) -> dict[str, float]:
    from pipeline.flow.ray_env import prepare_ray_env

    job = job_of(shards, output)
    prepare_ray_env(job.cluster)
    import threading

    from pipeline.flow.driver import run_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.flow.run_result import RunResult

    prepared, middle, cpu = prepare_job(job), Middle(num_images), Cpu()
    outcome = RunResult.of(prepared)
    run_job(
        prepared,
        outcome,
        lambda now: middle.look(now.images_done, time.monotonic(), cpu.seconds()),
        threading.Event(),
    )
    return middle.rate()


def bare(shards: Path, output: Path, num_images: int) -> dict[str, float]:
    """One AsyncLLM over the same questions, decoded beforehand."""
    from pipeline.engines.factory import _prepare_process
    from pipeline.flow.prepared_job import prepare_job

    prepared = prepare_job(job_of(shards, output))
    _prepare_process(prepared.engine_spec.config)
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    spec = prepared.engine_spec
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=spec.model_path,
            dtype=spec.config.dtype,
            max_model_len=spec.config.max_model_len,
            max_num_seqs=64,
            max_num_batched_tokens=8192,
            enforce_eager=True,
            limit_mm_per_prompt={"image": 1},
            enable_chunked_prefill=False,
            disable_log_stats=True,
        )
    )
    middle = asyncio.run(_feed(engine, prepared, num_images))
    engine.shutdown()
    return middle.rate()


async def _feed(engine: Any, prepared: Any, num_images: int) -> Middle:
    from PIL import Image

    from pipeline.engines.hub_model import PromptTokens
    from pipeline.engines.vllm import _sampling
    from pipeline.models import FAMILIES

    tokens = PromptTokens(FAMILIES[prepared.engine_spec.family], prepared.engine_spec.model_path)
    questions = list(_questions(prepared))
    middle, cpu, window, done = Middle(num_images), Cpu(), asyncio.Semaphore(IN_FLIGHT), 0

    async def ask(question: Any) -> None:
        nonlocal done
        prompt = {
            "prompt_token_ids": list(tokens.encode(question.system, question.prompt)),
            "multi_modal_data": {"image": Image.fromarray(question.pixels)},
        }
        sampling = _sampling(prepared.engine_spec, question)
        sampling.detokenize = True
        async with window:
            async for _ in engine.generate(prompt, sampling, request_id=question.id):
                pass
        done += 1
        if done % 16 == 0:
            middle.look(done, time.monotonic(), cpu.seconds())

    await asyncio.gather(*(ask(question) for question in questions))
    return middle


def _questions(prepared: Any) -> Iterator[Any]:
    from pipeline.engines import EngineRequest
    from pipeline.prompts import RequestSampler, draw_seed
    from pipeline.stages.captioning import _frames, pixels_of
    from pipeline.stages.read_batches import read_shard

    asker = RequestSampler(prepared.job)
    for shard in prepared.plan.shards.values():
        for batch in read_shard(prepared.read_spec, shard, []):
            images = batch["images"][0].as_py()
            frames = _frames(images, pixels_of(batch, images))
            for row, pixels in frames.items():
                for request in asker.requests(shard.path, row):
                    yield EngineRequest(
                        id=f"{shard.path}#{row}#{request.slot}",
                        pixels=pixels.copy(),
                        image_id=f"{shard.path}#{row}",
                        system=request.system,
                        prompt=request.prompt,
                        seed=draw_seed(prepared.job.seed, shard.path, row, request.slot, 0),
                    )


def main() -> None:
    args = arguments("saturation", __doc__, images=960, rounds=3)
    if args.part:
        run = {"pipeline": pipeline, "bare": bare}[args.part[0]]
        print(json.dumps(run(Path(args.part[1]), Path(args.part[2]), args.images)))
        return
    from pipeline.standin.demo_data import draw_dataset

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        draw_dataset(shards, num_images=args.images, seed=4, shard_rows=120)
        for number in range(args.rounds):
            rows.append(_round(args, number, shards, Path(folder)))
            print(rows[-1], flush=True)
    publish(
        args,
        rows,
        {
            "pipeline to bare vLLM, captions/s, median": median([row["ratio"] for row in rows]),
            "CPU of the pipeline to that of bare vLLM, median": median([row["cpu_ratio"] for row in rows]),
        },
    )


def _round(args: Namespace, number: int, shards: Path, folder: Path) -> dict[str, float]:
    names = ["bare", "pipeline"] if number % 2 == 0 else ["pipeline", "bare"]
    result = {
        name: part("saturation", name, shards, folder / f"{name}{number}", images=args.images, rounds=args.rounds)
        for name in names
    }
    return {
        "bare_captions_per_s": result["bare"]["per_s"],
        "pipeline_captions_per_s": result["pipeline"]["per_s"],
        "ratio": result["pipeline"]["per_s"] / result["bare"]["per_s"],
        "bare_cpu_ms": result["bare"]["cpu_ms"],
        "pipeline_cpu_ms": result["pipeline"]["cpu_ms"],
        "cpu_ratio": result["pipeline"]["cpu_ms"] / result["bare"]["cpu_ms"],
    }


if __name__ == "__main__":
    main()
