"""Upper bound of the images per second of one GPU, from the cost of a caption: an estimate, not a measurement.

Prefill is bound by arithmetic; decoding is bound by arithmetic or by reading the weights and the KV cache, whichever is
slower. The two times are added, as if they never overlapped. System turn and image are computed once per image,
whatever its number of slots: only the text after them differs.
"""

from dataclasses import dataclass

from pipeline.engines.gpus import Gpu
from pipeline.models import BFLOAT16, MEMORY_SHARE, ModelDims, NumberFormats

ATTAINABLE = 0.45
"""Share of the stated FLOPs that the matrix products of a whole engine step attain; an assumption."""

MAX_NUM_SEQS = 256
"""Requests that are decoded together if memory allows. On an H100, twice as many would save 1.1 of 33 ms an image, half
of the cost of reading the weights for each token; half as many would cost 2.2 ms more."""

STEP_TOKENS = 8192
"""Tokens of one engine step in the estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The requests for each image."""

    slots: int
    prompt_tokens: float
    """Of one request on average, including the image's."""
    caption_tokens: float
    """Of one caption on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one image with all its slots."""

    prefill_flops: float
    """Including the vision tower's."""
    decode_flops: float
    decode_bytes: float
    """Bytes read from the GPU's memory."""


def roofline(dims: ModelDims, card: Gpu, slots: int, prompt_tokens: float, caption_tokens: float) -> float:
    """Return the maximum of images per second on one GPU in bfloat16.

    Args:
        dims: the model.
        card: one of `pipeline.engines.gpus.GPUS`.
        slots: captions of every image.
        prompt_tokens: of one request on average, including the image's.
        caption_tokens: of one caption on average.

    Raises:
        ValueError: a number is not positive, the prompt is shorter than the image, or the model does not fit.
    """
    load = Load(slots=slots, prompt_tokens=prompt_tokens, caption_tokens=caption_tokens)
    return 1 / seconds_per_image(dims, card, load)


def fits(dims: ModelDims, card: Gpu, tokens: float, numbers: NumberFormats = BFLOAT16) -> bool:
    """Whether a card has room for a sequence of so many tokens beside the weights."""
    return dims.kv_tokens(MEMORY_SHARE * card.memory_bytes, STEP_TOKENS, numbers) >= tokens


def seconds_per_image(dims: ModelDims, card: Gpu, load: Load, numbers: NumberFormats = BFLOAT16) -> float:
    """Return the seconds of one GPU for an image with all its slots; raises as `roofline`."""
    tokens = dims.kv_tokens(MEMORY_SHARE * card.memory_bytes, STEP_TOKENS, numbers)
    together = min(MAX_NUM_SEQS, int(tokens / (load.prompt_tokens + load.caption_tokens)))
    if not together:
        raise ValueError(f"{card.marks[0]}: the weights leave no room for one sequence; allowed: a larger GPU, or fp8")
    cost = cost_of(dims, load, together, numbers)
    flops = ATTAINABLE * (card.fp8_flops if numbers.fp8 and card.fp8_flops else card.flops)
    return cost.prefill_flops / flops + max(cost.decode_flops / flops, cost.decode_bytes / card.bytes_per_s)


def cost_of(dims: ModelDims, load: Load, together: int, numbers: NumberFormats = BFLOAT16) -> Cost:
    """Return the cost of an image when `together` requests are decoded together and share the reading of weights."""
    if min(load.slots, load.caption_tokens) <= 0 or load.prompt_tokens < dims.image_tokens:
        raise ValueError(
            f"slots={load.slots} prompt_tokens={load.prompt_tokens} caption_tokens={load.caption_tokens}; allowed: "
            f"slots and caption_tokens above 0, prompt_tokens at least the image's {dims.image_tokens}"
        )
    text = max(0.0, load.prompt_tokens - dims.shared_tokens)
    context = load.prompt_tokens + load.caption_tokens / 2
    first = dims.prefill_flops(load.prompt_tokens)
    others = (load.slots - 1) * dims.prefill_flops(text, cached=dims.shared_tokens)
    weights = numbers.layer_weight_bytes * dims.layer_weights + 2 * dims.head_weights
    token_bytes = weights / together + context * dims.kv_values_per_token * numbers.kv_bytes
    captioned = load.slots * load.caption_tokens
    return Cost(
        prefill_flops=dims.image_flops + first + others,
        decode_flops=captioned * dims.decode_flops(context),
        decode_bytes=captioned * token_bytes,
    )
