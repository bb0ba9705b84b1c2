"""How fast a card can caption at best, from what a caption costs: an estimate, and no measurement.

Prefill is bound by arithmetic, decoding by the slower of arithmetic and reading the weights and the KV
cache; the two are added, as if they never overlapped. System turn and image are read once per image,
however many slots it has: only the words behind them differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engines.capacity import BFLOAT16, MEMORY_SHARE, NumberFormats, kv_tokens
from pipeline.engines.gpus import Gpu
from pipeline.engines.model_dims import JOYCAPTION, ModelDims

ATTAINABLE = 0.45
"""Share of the stated FLOPs that the matrix products of a whole engine step reach; an assumption."""

SYSTEM_TOKENS = 40
"""Of the prompt in front of the image: header, dates and the author's system text."""

MAX_NUM_SEQS = 256
"""Requests decoded together where memory allows. On an H100 twice as many would spare 1.1 of 33 ms an image,
half of what reading the weights costs each token; half as many would cost 2.2 ms more."""

STEP_TOKENS = 8192
"""Of one engine step, where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What each image asks of the engine."""

    slots: int
    prompt_tokens: float
    """Of one request on average, the image's included."""
    caption_tokens: float
    """Of one caption on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one image with all its slots costs."""

    prefill_flops: float
    """The vision tower's included."""
    decode_flops: float
    decode_bytes: float
    """Read from the card's memory."""


def roofline(card: Gpu, slots: int, prompt_tokens: float, caption_tokens: float) -> float:
    """Return images a second on one card with JoyCaption in bfloat16, at best.

    Args:
        card: one of `pipeline.engines.gpus.CARDS`.
        slots: captions of every image.
        prompt_tokens: of one request on average, the image's 729 included.
        caption_tokens: of one caption on average.

    Raises:
        ValueError: a number is not positive, the prompt has no room for the image, or the card none for the model.
    """
    load = Load(slots=slots, prompt_tokens=prompt_tokens, caption_tokens=caption_tokens)
    return 1 / seconds_per_image(JOYCAPTION, card, load)


def seconds_per_image(shape: ModelDims, card: Gpu, load: Load, numbers: NumberFormats = BFLOAT16) -> float:
    """Return seconds of one card for an image with all its slots; raises as `roofline`."""
    tokens = kv_tokens(shape, MEMORY_SHARE * card.memory_bytes, STEP_TOKENS, numbers)
    together = min(MAX_NUM_SEQS, int(tokens / (load.prompt_tokens + load.caption_tokens)))
    if not together:
        raise ValueError(
            f"{card.marks[0]}: no room for one sequence beside the weights; allowed: a larger card, or fp8"
        )
    cost = cost_of(shape, load, together, numbers)
    flops = ATTAINABLE * (card.fp8_flops if numbers.fp8 and card.fp8_flops else card.flops)
    return cost.prefill_flops / flops + max(cost.decode_flops / flops, cost.decode_bytes / card.bytes_per_s)


def cost_of(shape: ModelDims, load: Load, together: int, numbers: NumberFormats = BFLOAT16) -> Cost:
    """Return what an image costs when `together` requests are decoded together, which share the reading of weights."""
    shared = SYSTEM_TOKENS + shape.vision.tokens
    if min(load.slots, load.caption_tokens) <= 0 or load.prompt_tokens < shape.vision.tokens:
        raise ValueError(
            f"slots={load.slots} prompt_tokens={load.prompt_tokens} caption_tokens={load.caption_tokens}; allowed: "
            f"slots and caption_tokens above 0, prompt_tokens at least the image's {shape.vision.tokens}"
        )
    rest = max(0.0, load.prompt_tokens - shared)
    context = load.prompt_tokens + load.caption_tokens / 2
    first = shape.prefill_flops(load.prompt_tokens)
    others = (load.slots - 1) * shape.prefill_flops(rest, cached=shared)
    weights = numbers.layer_weight_bytes * shape.layer_weights + 2 * shape.head_weights
    token_bytes = weights / together + context * shape.kv_values_per_token * numbers.kv_bytes
    captioned = load.slots * load.caption_tokens
    return Cost(
        prefill_flops=shape.vision.flops(shape.hidden) + first + others,
        decode_flops=captioned * shape.decode_flops(context),
        decode_bytes=captioned * token_bytes,
    )
