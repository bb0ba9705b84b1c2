"""The cost of a JSON Schema's grammar per token, in the engine with the stand-in and of the mask of a large vocabulary.

`python -m tests.benchmarks.grammar [--images N] [--rounds R]`. In the engine, the same images are asked for 48 tokens
without and with a grammar, in turn; nearly no answer ends before. CPU seconds are those of this process and the
engine's. The mask is computed for 128,256 tokens, the size of Llama 3's vocabulary; its tokens are drawn.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

from tests.benchmarks.report import Cpu, arguments, median, publish
from tests.benchmarks.slots import PROMPTS, SYSTEM, drawn

NUM_TOKENS = 48
VOCABULARY = 128_256
TEXT = json.dumps({"type": "string", "minLength": 400})
OBJECT = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 80},
        "colours": {"type": "array", "items": {"enum": ["red", "green", "blue", "yellow"]}, "maxItems": 3},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "condition": {"anyOf": [{"enum": ["new", "used"]}, {"type": "null"}]},
    },
    "required": ["title", "colours", "count", "condition"],
}
ANSWER = '{"title": "A small red boat on the beach", "colours": ["red", "blue"], "count": 2, "condition": "used"}'


def started() -> Any:
    from pipeline.config import EngineConfig, ModelConfig, SamplingConfig
    from pipeline.engines import EngineSpec, start_engine
    from pipeline.models import FAMILIES
    from pipeline.recipe import find_weights

    weights = find_weights(ModelConfig(id="standin"))
    return start_engine(
        EngineSpec(
            config=EngineConfig(max_model_len=768),
            sampling=SamplingConfig(stop_loops=False),
            max_tokens=NUM_TOKENS,
            model_path=weights.path,
            revision=None,
            family="joycaption",
            geometry=FAMILIES["joycaption"].geometry_of(weights.stated),
            schemas=(TEXT,),
        )
    )


async def ask(engine: Any, pictures: list[Any], schema: str | None, name: str) -> dict[str, float]:
    """Ask for every image once; return seconds, CPU seconds and tokens."""
    from pipeline.engines import EngineRequest

    def request(number: int) -> EngineRequest:
        own = f"{name}#{number}"
        return EngineRequest(
            id=own,
            pixels=pictures[number],
            image_id=own,
            system=SYSTEM,
            prompt=PROMPTS[0],
            seed=number,
            schema=schema,
        )

    cpu, began = Cpu(), time.monotonic()
    before = cpu.seconds()
    answers = await asyncio.gather(*(engine.answer(request(number)) for number in range(len(pictures))))
    return {
        "seconds": time.monotonic() - began,
        "cpu_s": cpu.seconds() - before,
        "tokens": sum(answer.caption_tokens for answer in answers),
    }


async def in_engine(images: int, rounds: int) -> list[dict[str, Any]]:
    engine = started()
    pictures = drawn(images, engine._tokens.geometry.width_px)
    for schema in (None, TEXT):
        await ask(engine, pictures[:16], schema, f"warm {schema is None}")
    rows = []
    for number in range(rounds):
        plain = await ask(engine, pictures, None, f"plain {number}")
        guided = await ask(engine, pictures, TEXT, f"guided {number}")
        each = [sum_["cpu_s"] / sum_["tokens"] * 1e6 for sum_ in (plain, guided)]
        rows.append(
            {
                "round": number,
                "tokens_plain": plain["tokens"],
                "tokens_guided": guided["tokens"],
                "cpu_us_per_token_plain": each[0],
                "cpu_us_per_token_guided": each[1],
                "difference_us": each[1] - each[0],
                "rate_ratio": plain["seconds"] / guided["seconds"],
            }
        )
        print(rows[-1], flush=True)
    engine.close()
    return rows


def mask_us(rounds: int) -> dict[str, float]:
    """Microseconds per token of an answer for the mask, and milliseconds to compile the grammar."""
    import xgrammar as xgr

    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    drawn_words = {
        (" " * rng.randrange(2) + "".join(rng.choices(letters, k=rng.randrange(2, 9)))).encode()
        for _ in range(2 * VOCABULARY)
    }
    single = [bytes([number]) for number in range(256)]
    vocabulary = [*single, *sorted(drawn_words)[: VOCABULARY - 257], b"</s>"]
    info = xgr.TokenizerInfo(vocabulary, vocab_type=xgr.VocabType.RAW, stop_token_ids=[len(vocabulary) - 1])
    place = {word: number for number, word in enumerate(vocabulary)}
    began = time.perf_counter()
    compiled = xgr.GrammarCompiler(info, max_threads=1).compile_json_schema(json.dumps(OBJECT), any_whitespace=False)
    compile_ms = (time.perf_counter() - began) * 1e3
    bitmask = xgr.allocate_token_bitmask(1, len(vocabulary))
    best = float("inf")
    for _ in range(rounds):
        matcher = xgr.GrammarMatcher(compiled)
        spent = 0.0
        for byte in ANSWER.encode():
            began = time.perf_counter()
            matcher.fill_next_token_bitmask(bitmask)
            accepted = matcher.accept_token(place[bytes([byte])])
            spent += time.perf_counter() - began
            assert accepted, byte
        best = min(best, spent / len(ANSWER) * 1e6)
    return {"mask_us_per_token": best, "compile_ms": compile_ms}


def main() -> None:
    args = arguments("grammar", __doc__, images=128, rounds=4)
    mask = mask_us(10 * args.rounds)
    rows = asyncio.run(in_engine(args.images, args.rounds))
    summary = {
        name: median([row[name] for row in rows])
        for name in ("cpu_us_per_token_plain", "cpu_us_per_token_guided", "difference_us", "rate_ratio")
    }
    publish(args, rows, {**summary, **{name: round(value, 1) for name, value in mask.items()}})


if __name__ == "__main__":
    main()
