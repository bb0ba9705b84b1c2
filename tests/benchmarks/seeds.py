"""Captions a second with a seed for each request, without, and greedy, on one engine.

`python -m tests.benchmarks.seeds [--images N] [--rounds R]`. vLLM draws a seeded request's token by itself, row by
row of its batch, and on CUDA leaves FlashInfer's sampler for it (vllm/v1/sample/ops/topk_topp_sampler.py, 0.29).
The order turns from round to round.
"""

import asyncio
from dataclasses import replace
from typing import Any

from tests.benchmarks.report import arguments, median, publish
from tests.benchmarks.slots import Watched, ask, drawn, started

WAYS: tuple[tuple[str, bool, float | None], ...] = (
    ("seeded", True, None),
    ("unseeded", False, None),
    ("greedy", False, 0.0),
)


class Drawing:
    """The engine, with questions that are drawn in one of the ways."""

    def __init__(self, engine: Any, *, seeded: bool, temperature: float | None) -> None:
        self._engine, self._seeded, self._temperature = engine, seeded, temperature

    async def answer(self, question: Any) -> Any:
        seed = question.seed if self._seeded else None
        return await self._engine.answer(replace(question, seed=seed, temperature=self._temperature))


async def measure(args: Any) -> list[dict[str, float]]:
    engine = started(Watched())
    pictures = drawn(args.images, engine._tokens.geometry.width_px)
    rows: list[dict[str, float]] = []
    for name, seeded, heat in WAYS:  # the unseeded one compiles its kernel at its first step
        await ask(Drawing(engine, seeded=seeded, temperature=heat), pictures[:64], [0], f"warm {name}")
    for number in range(args.rounds):
        turned = WAYS[number % len(WAYS) :] + WAYS[: number % len(WAYS)]
        rates = {
            name: await ask(Drawing(engine, seeded=seeded, temperature=heat), pictures, [0], f"{name}{number}")
            for name, seeded, heat in turned
        }
        rows.append({f"{name}_per_s": rates[name] for name, _, _ in WAYS})
        print(rows[-1], flush=True)
    engine.close()
    return rows


def main() -> None:
    args = arguments("seeds", __doc__, images=256, rounds=6)
    rows = asyncio.run(measure(args))
    ratios = {
        name: median([row[f"{name}_per_s"] / row["seeded_per_s"] for row in rows]) for name in ("unseeded", "greedy")
    }
    publish(args, rows, {"captions/s to seeded, medians": ratios})


if __name__ == "__main__":
    main()
