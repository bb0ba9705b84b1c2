"""Captions a second of k slots together against k passes over the same images, on one engine, for k = 1, 2, 4.

`python -m tests.benchmarks.slots [--images N] [--rounds R]`. A pass asks one slot of every image and starts from
nothing: its images carry ids of their own, so that neither prefix nor encoder cache knows them. vLLM's own metrics
are read at every step of its scheduler: requests running and waiting, share of the KV cache in use, share of prompt
tokens that came from the prefix cache.
"""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.report import arguments, median, publish

SLOTS = (1, 2, 4)
PROMPTS = (
    "Write a long descriptive caption for this image in a formal tone.",
    "Write a short descriptive caption for this image in a casual tone.",
    "Write a list of Booru tags for this image.",
    "Write a medium-length stable diffusion prompt for this image.",
)
SYSTEM = "You are a helpful image captioner."
IN_FLIGHT = 128
"""Requests, as in a run."""


class Watched:
    """vLLM's own metrics, added up: a stat logger."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.running: list[int] = []
        self.waiting: list[int] = []
        self.kv: list[float] = []
        self.prefix_asked = self.prefix_found = 0

    def record(self, scheduler_stats: Any = None, *_: Any, **__: Any) -> None:
        if scheduler_stats is None:
            return
        self.running.append(scheduler_stats.num_running_reqs)
        self.waiting.append(scheduler_stats.num_waiting_reqs)
        self.kv.append(scheduler_stats.kv_cache_usage)
        self.prefix_asked += scheduler_stats.prefix_cache_stats.queries
        self.prefix_found += scheduler_stats.prefix_cache_stats.hits

    def log_engine_initialized(self) -> None:
        pass

    def log(self) -> None:
        pass

    def record_sleep_state(self, *_: Any) -> None:
        pass

    def means(self) -> dict[str, float]:
        return {
            "running": statistics.mean(self.running),
            "waiting": statistics.mean(self.waiting),
            "kv_share": statistics.mean(self.kv),
            "prefix_hits": self.prefix_found / max(1, self.prefix_asked),
        }


def started(watched: Watched) -> Any:
    """Return the stand-in's engine with its metrics going to `watched`."""
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

    door._stat_logger = lambda stats: lambda config, index: watched
    return door.VllmEngine(spec)


def drawn(num_images: int, side: int) -> list[Any]:
    import numpy as np

    from pipeline.standin.draw_picture import render
    from pipeline.standin.world import sample_scene

    rng = random.Random(7)
    scenes = [sample_scene(rng, held_out=False) for _ in range(num_images)]
    return [np.ascontiguousarray(render(scene, rng.getrandbits(40), (side, side)).convert("RGB")) for scene in scenes]


def plain_prompt(_: int, slot: int) -> str:
    return PROMPTS[slot]


async def ask(
    engine: Any, pictures: list[Any], slots: list[int], name: str, prompt_of: Callable[[int, int], str] = plain_prompt
) -> float:
    """Ask these slots of every image together; return captions a second. `prompt_of` gets image and slot."""
    from pipeline.engines import EngineRequest

    window = asyncio.Semaphore(max(1, IN_FLIGHT // len(slots)))

    async def caption_picture(number: int) -> None:
        async with window:
            await asyncio.gather(
                *(
                    engine.answer(
                        EngineRequest(
                            id=f"{name}#{number}#{slot}",
                            pixels=pictures[number],
                            image_id=f"{name}#{number}",
                            system=SYSTEM,
                            prompt=prompt_of(number, slot),
                            seed=number * len(PROMPTS) + slot,
                        )
                    )
                    for slot in slots
                )
            )

    began = time.monotonic()
    await asyncio.gather(*(caption_picture(number) for number in range(len(pictures))))
    return len(pictures) * len(slots) / (time.monotonic() - began)


async def measure(args: Any, watched: Watched) -> list[dict[str, float]]:
    engine = started(watched)
    pictures = drawn(args.images, engine._tokens.geometry.width_px)
    names = (f"pass{number}" for number in itertools.count())
    await ask(engine, pictures[:64], [0], next(names))
    rows = []
    for k, _ in itertools.product(SLOTS, range(args.rounds)):
        watched.clear()
        together = await ask(engine, pictures, list(range(k)), next(names))
        metrics = watched.means()
        rates = [await ask(engine, pictures, [slot], next(names)) for slot in range(k)]
        apart = k / sum(1 / rate for rate in rates)
        rows.append({"k": k, "together_per_s": together, "apart_per_s": apart, "ratio": together / apart, **metrics})
        print(rows[-1], flush=True)
    engine.close()
    return rows


def main() -> None:
    args = arguments("slots", __doc__, images=192, rounds=3)
    rows = asyncio.run(measure(args, Watched()))
    ratios = {f"k={k}": median([row["ratio"] for row in rows if row["k"] == k]) for k in SLOTS}
    publish(args, rows, {"captions/s together to apart, medians": ratios})


if __name__ == "__main__":
    main()
