"""Share of the prompt tokens that the prefix cache gives at four slots: without fields, and with fields in two places.

`python -m tests.benchmarks.context [--images N]`. On the stand-in with the real vLLM. The four slots of an image are
asked together, as in a run. A field is a text of its own for each image, the same in its four slots.
"""

import asyncio
import random
from typing import Any

from tests.benchmarks.report import arguments, publish
from tests.benchmarks.slots import PROMPTS, Watched, ask, drawn, started

WORDS = ("red", "round", "cross", "large", "yellow", "plain", "texture", "square", "dark", "two", "left", "blue")
NUM_WORDS = 30
"""Of a field: a list of tags, or a caption of a parent."""


def field_of(number: int) -> str:
    return ", ".join(random.Random(number).choices(WORDS, k=NUM_WORDS))


def extra_sentence(number: int, slot: int) -> str:
    return f"{PROMPTS[slot]} The image has the tags {field_of(number)}."


def opening_sentence(number: int, slot: int) -> str:
    return f"The image has the tags {field_of(number)}. {PROMPTS[slot]}"


PLACES = {
    "no fields": lambda _, slot: PROMPTS[slot],
    "fields at the end (extra)": extra_sentence,
    "fields at the start (prompt)": opening_sentence,
}


async def measure(args: Any) -> list[dict[str, Any]]:
    engine = started(Watched())
    pictures = drawn(args.images, engine._tokens.geometry.width_px)
    await ask(engine, pictures[:16], [0], "warm")
    rows = []
    for place, prompt_of in PLACES.items():
        before = engine.stats()
        await ask(engine, pictures, list(range(len(PROMPTS))), place, prompt_of)
        after, requests = engine.stats(), len(pictures) * len(PROMPTS)
        tokens, hits = after.prefix_tokens - before.prefix_tokens, after.prefix_hits - before.prefix_hits
        rows.append(
            {
                "place": place,
                "prompt_tokens": tokens / requests,
                "hit_tokens": hits / requests,
                "computed_tokens": (tokens - hits) / requests,
                "hits": hits / tokens,
            }
        )
        print(rows[-1], flush=True)
    engine.close()
    return rows


def main() -> None:
    args = arguments("context", __doc__, images=96)
    rows = asyncio.run(measure(args))
    publish(args, rows, {"share of prompt tokens from the prefix cache": {row["place"]: row["hits"] for row in rows}})


if __name__ == "__main__":
    main()
