"""One request through the job's own engine: greedy, and compared with the known caption where the model has one."""

import asyncio
import time

import numpy as np

from pipeline.config import EngineConfig, EngineKind, RequestConfig, SamplingConfig
from pipeline.doctor.check import Context, Finding, failed, job_of, ok
from pipeline.engines import EngineRequest, EngineResponse, EngineSpec, start_engine
from pipeline.models import KnownCaption, family_of, generation_of
from pipeline.models.family import Pixels
from pipeline.prompts import build_request
from pipeline.recipe import find_weights

MAX_TOKENS = 64
"""Of the caption: it is only looked at, or shorter."""

TEXT_PROMPT = "Shorten: A large red disc is in the middle of a white background. Nothing else is in the picture."
"""For a model without images."""

BACKGROUND, DISC = (246, 246, 246), (215, 30, 35)
"""A red disc on white, 0.65 as wide as the image. Whole numbers and no library of pictures: the pixels are the same on
every machine. No two tokens of the stand-in's caption are closer than 0.8 in their logits, where rounding moves them by
0.02 (bfloat16 against float32)."""


def draw(width: int, height: int) -> Pixels:
    """Return the golden image, RGB, shape (height, width, 3)."""
    y, x = np.ogrid[:height, :width]
    from_center = (2 * x - width + 1) ** 2 * height**2 + (2 * y - height + 1) ** 2 * width**2
    inside = 100 * from_center <= 42 * (width * height) ** 2
    return np.where(inside[..., None], np.array(DISC, np.uint8), np.array(BACKGROUND, np.uint8))


def has_model(context: Context) -> bool:
    """Whether the job's engine has a model at all."""
    return context.job is not None and context.job.engine.kind is not EngineKind.ECHO


def golden(context: Context) -> Finding:
    """Caption the golden image and compare."""
    job = job_of(context)
    weights, family = find_weights(job.model), family_of(job.model)
    geometry = family.geometry_of(weights.stated)
    spec = EngineSpec(
        config=job.engine,
        sampling=SamplingConfig(temperature=0, stop_loops=False),
        max_tokens=MAX_TOKENS,
        family=family.name,
        model_path=weights.path,
        revision=job.model.revision,
        geometry=geometry,
    )
    generation = generation_of(job.model)
    asked = RequestConfig(mode=generation.modes[0].name) if generation.modes else RequestConfig(prompt=TEXT_PROMPT)
    request = build_request(generation, asked, None, slot="golden", where="doctor")
    width, height = geometry.size_of(1000, 1000)
    question = EngineRequest(
        id="golden",
        pixels=draw(width, height),
        image_id="golden",
        system=request.system,
        prompt=request.prompt,
        seed=None,
    )
    started = time.monotonic()
    response = _answer(spec, question)
    took = f"engine and caption took {time.monotonic() - started:.0f} s"
    if not response.text:
        return failed(
            f"no caption: {response.message or response.reason or 'the text is empty'}", "see the log of vLLM"
        )
    known = next((known for known in family.known_captions if known.model_digest == weights.digest), None)
    if known is None or not _is_plain(job.engine):
        return ok(f"{took}; no known caption to compare with, so read it: {response.text!r}")
    return _compared(response, known, took)


def _answer(spec: EngineSpec, question: EngineRequest) -> EngineResponse:
    async def ask() -> EngineResponse:
        return await engine.answer(question)

    engine = start_engine(spec)
    try:
        return asyncio.run(ask())
    finally:
        engine.close()


def _is_plain(engine: EngineConfig) -> bool:
    """Whether the engine computes as the one of the known caption did: other number formats may word it otherwise."""
    return engine.dtype == "bfloat16" and engine.quantization is None and engine.kv_cache_dtype == "auto"


def _compared(response: EngineResponse, known: KnownCaption, took: str) -> Finding:
    found = (response.text, response.caption_tokens)
    if found == (known.text, known.num_tokens):
        return ok(f"{took}; the {known.num_tokens} tokens of the known caption: {known.text!r}")
    return failed(
        f"another caption than the known one: found {found[0]!r} ({found[1]} tokens), expected {known.text!r} "
        f"({known.num_tokens} tokens)",
        "do not start the job: a GPU or a build computes something else. Install the pinned versions (make setup), "
        "run `dcgmi diag` on the GPU",
    )
