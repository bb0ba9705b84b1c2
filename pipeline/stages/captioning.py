"""Captions a batch: sends its requests to the engine, evaluates every text, stages the caption rows as one fragment."""

import asyncio
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import JobConfig
from pipeline.config.prompt_fields_config import slot_of
from pipeline.engines import Engine, EngineRequest, EngineResponse, EngineStats
from pipeline.errors import PipelineError
from pipeline.ledger.caption_table import concat_rows, count_statuses
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import write_fragment
from pipeline.ledger.shard_tracker import Receipt
from pipeline.ledger.taken_over import from_stream
from pipeline.prompts import CountTokens, Request, RequestSampler, draw_seed, without_prompt
from pipeline.quality import flag_text, prepare_rules
from pipeline.stages.caption_rows import Existing, RequestState, rows_table, with_attempt
from pipeline.stages.dispatch import CrashLimits, Dispatcher, ImageRequests
from pipeline.storage import Store
from schemas.batch import RECEIPT, BatchKind
from schemas.shard import Shard
from schemas.status import SKIPS

MAX_TEMPERATURE = 2.0
"""As for `sampling.temperature`."""

NO_PIXELS: npt.NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)
"""Of a request without an image."""

Frames = dict[int, npt.NDArray[np.uint8]]
"""Pixels by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSpec:
    """What captioning needs besides an engine; pickles."""

    job: JobConfig
    run: RunIdentity
    vocabulary: frozenset[str] | None = None
    """Tags of `quality.tags.vocabulary`, canonical."""
    clip_tokenizer: str | None = None
    """Content of `quality.clip.tokenizer`, as the JSON text of the tokenizers library: megabytes."""
    tokenizer: str | None = None
    """Local folder or hub id of the model, if `prompt_fields.*.max_tokens` needs its tokenizer."""
    first_attempt: int = 0
    """Number of the first attempt. A retry starts after the earlier attempts, so that its seeds are new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionStats:
    """Counts of a captioner since it was built, and the state of its engine."""

    questions: int = 0
    """Requests answered by the engine, retries included."""
    repairs: int = 0
    """Of these, retries of a rejected request."""
    prompt_tokens: int = 0
    """Of the responses with text, the image's tokens included."""
    caption_tokens: int = 0
    restarts: int = 0
    """Of the engine."""
    engine: EngineStats = field(default_factory=EngineStats)


class Captioner:
    """Turns batches into caption rows, many concurrently, on one event loop; keeps none of them."""

    def __init__(self, spec: CaptionSpec, engine: Engine) -> None:
        limits = CrashLimits(per_image=spec.job.engine.max_crashes_per_image, restarts=spec.job.engine.max_restarts)
        self._spec = spec
        self._sampler = RequestSampler(spec.job, _token_counter(spec))
        self._dispatcher = Dispatcher(engine, limits)
        self._engine = engine
        self._stats = CaptionStats()
        self._rules = prepare_rules(spec.job.quality, spec.vocabulary, spec.clip_tokenizer)
        self._existing_fields = {slot.slot: slot.existing.field for slot in spec.job.captions if slot.existing}

    def stats(self) -> CaptionStats:
        """Return the counts so far; may be called from any thread."""
        return replace(self._stats, restarts=self._dispatcher.restarts, engine=self._engine.stats())

    async def rows(self, batch: pa.Table) -> pa.Table:
        """Return the caption rows (`schemas.caption_row`) of a batch of images (`schemas.batch.BATCH`).

        Raises:
            EngineDead: the engine cannot be kept alive.
        """
        shard: str = batch["shard"][0].as_py()
        images: list[dict[str, Any]] = batch["images"][0].as_py()
        taken_over = from_stream(batch["taken_over"][0].as_py())
        done = set(zip(taken_over["row"].to_pylist(), taken_over["slot"].to_pylist(), strict=True))
        states = [
            state
            for image in images
            for state in self._states(shard, image)
            if (image["row"], state.request.slot) not in done
        ]
        states = await self._caption(shard, states, _frames(images, pixels_of(batch, images)))
        table = await asyncio.to_thread(rows_table, shard, self._spec.run.recipe, states)
        return concat_rows([table, taken_over]) if done else table

    def _states(self, shard: str, image: Mapping[str, Any]) -> Iterator[RequestState]:
        """The requests of an image; one whose slot has a text in the source is not sent."""
        texts: dict[str, str | None] = json.loads(image["existing"] or "{}")
        for request in self.requests(shard, image):
            slot = request.slot
            if slot in texts:
                text = texts[slot]
                asked = request if text is None else self._taken(request)
                existing = Existing(
                    text=text,
                    condition=f"captions.{slot}.existing: {self._existing_fields[slot]}",
                    # No prompt gave the text any words; its mode and its schema are those of the request.
                    flags=() if text is None else flag_text(self._rules, replace(request, given=()), text),
                )
                yield RequestState(image=image, request=asked, seed=None, existing=existing)
            else:
                yield RequestState(image=image, request=request, seed=self._seed(shard, image["row"], slot, 0))

    def _taken(self, request: Request) -> Request:
        """The request of a row whose text comes from the source, perhaps from a slot of the parent."""
        parent_slot = slot_of(self._existing_fields[request.slot])
        return replace(without_prompt(request), parent_slots=(parent_slot,) if parent_slot else ())

    async def _caption(self, shard: str, states: list[RequestState], frames: Frames) -> list[RequestState]:
        """Send the requests to the engine, and retry those whose text the rules reject, as `quality.retry` says."""
        pending = [
            index
            for index, state in enumerate(states)
            if state.image["reason"] is None and state.existing is None and not state.request.fault
        ]
        for attempt in range(self._spec.job.quality.retry.attempts + 1):
            requests = {index: self._engine_request(shard, states[index], frames, attempt) for index in pending}
            responses = await self._dispatcher.ask(_by_image(shard, states, requests))
            self._count(list(responses.values()), retry=attempt > 0)
            for index, request in requests.items():
                states[index] = with_attempt(self._rules, states[index], responses[request.id], request.seed)
            pending = [index for index in pending if states[index].attempts[-1].rejected]
            if not pending:
                break
        return states

    def requests(self, shard: str, image: Mapping[str, Any]) -> list[Request]:
        """Return the requests of an image of a batch (`schemas.batch.IMAGE`), in slot order.

        Those of a skipped image are not sent, so they need no field: its placeholders stay in their prompts.
        """
        worded = self._sampler.uses_fields and image["reason"] not in SKIPS
        metadata = json.loads(image["source"]) if worded else None
        return self._sampler.requests(shard, image["row"], metadata)

    def _count(self, responses: Sequence[EngineResponse], *, retry: bool) -> None:
        stats, with_text = self._stats, [response for response in responses if response.text is not None]
        self._stats = replace(
            stats,
            questions=stats.questions + len(responses),
            repairs=stats.repairs + (len(responses) if retry else 0),
            prompt_tokens=stats.prompt_tokens + sum(response.prompt_tokens or 0 for response in with_text),
            caption_tokens=stats.caption_tokens + sum(response.caption_tokens or 0 for response in responses),
        )

    def _seed(self, shard: str, row: int, slot: str, attempt: int) -> int | None:
        if not self._spec.job.sampling.seeded:
            return None
        return draw_seed(self._spec.job.seed, shard, row, slot, self._spec.first_attempt + attempt)

    def _engine_request(
        self, shard: str, state: RequestState, frames: Mapping[int, npt.NDArray[np.uint8]], attempt: int
    ) -> EngineRequest:
        row, request = state.image["row"], state.request
        return EngineRequest(
            id=f"{shard}#{row}#{request.slot}#{attempt}",
            pixels=frames.get(row, NO_PIXELS),
            # Equal bytes give equal pixels: a run has one `images` section.
            image_id=state.image["image_sha256"] or f"{shard}#{row}",
            system=request.system,
            prompt=request.prompt,
            schema=request.schema,
            seed=self._seed(shard, row, request.slot, attempt),
            temperature=_temperature(self._spec.job, attempt),
            repetition_penalty=self._spec.job.quality.retry.repetition_penalty if attempt else None,
        )


class Caption:
    """Captions batches and stages their caption rows."""

    def __init__(self, spec: CaptionSpec, engine: Engine, store: Store) -> None:
        self._run = spec.run
        self._store = store
        self._captioner = Captioner(spec, engine)

    def stats(self) -> CaptionStats:
        """Return the counts so far; may be called from any thread."""
        return self._captioner.stats()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Caption a batch (`schemas.batch.BATCH`) and return its receipt (`schemas.batch.RECEIPT`).

        Raises:
            EngineDead: the engine cannot be kept alive.
            StoreError: the fragment cannot be written.
        """
        if batch["kind"][0].as_py() != BatchKind.IMAGES:
            return _receipt(batch)
        return await asyncio.to_thread(self._stage, batch, await self._captioner.rows(batch))

    def _stage(self, batch: pa.Table, table: pa.Table) -> pa.Table:
        head = batch.select(["shard", "size", "etag", "num_images"]).to_pylist()[0]
        shard = Shard(path=head["shard"], url="", size=head["size"], etag=head["etag"])
        path = write_fragment(self._store, self._run, shard, head["num_images"], table)
        images = batch["images"][0].as_py()
        return _receipt(
            batch,
            statuses=count_statuses(table),
            num_taken_over=from_stream(batch["taken_over"][0].as_py()).num_rows,
            num_skipped=sum(image["reason"] in SKIPS for image in images),
            fragment=path,
            rows=[image["row"] for image in images],
        )


def _token_counter(spec: CaptionSpec) -> CountTokens | None:
    if spec.tokenizer is None:
        return None
    # Importing transformers takes seconds; only jobs that limit the tokens of a field need it.
    from pipeline.engines.hub_model import token_counter  # noqa: PLC0415

    return token_counter(spec.tokenizer, spec.job.model.revision)


def pixels_of(batch: pa.Table, images: Sequence[Mapping[str, Any]]) -> list[npt.NDArray[np.uint8]]:
    """Return the pixels of each image that has any, shape (height, width, 3): views into the batch."""
    buffer = np.frombuffer(batch["pixels"][0].as_buffer(), np.uint8)
    shapes = [(image["pixels_height"], image["pixels_width"], 3) for image in images if has_pixels(image)]
    ends = np.cumsum([0, *(height * width * depth for height, width, depth in shapes)])
    return [buffer[start:end].reshape(shape) for start, end, shape in zip(ends, ends[1:], shapes, strict=False)]


def _frames(images: Sequence[Mapping[str, Any]], pixels: Sequence[npt.NDArray[np.uint8]]) -> Frames:
    """The pixels of each image for which a request is sent, by row."""
    decoded = [image["row"] for image in images if has_pixels(image)]
    return dict(zip(decoded, pixels, strict=True))


def has_pixels(image: Mapping[str, Any]) -> bool:
    """Whether an image of a batch (`schemas.batch.IMAGE`) has pixels in it."""
    return image["pixels_width"] is not None


def _by_image(shard: str, states: Sequence[RequestState], requests: Mapping[int, EngineRequest]) -> list[ImageRequests]:
    """The requests of each image together, in the order of `states`."""
    by_row: dict[int, list[EngineRequest]] = {}
    for index, request in requests.items():
        by_row.setdefault(states[index].image["row"], []).append(request)
    return [ImageRequests(f"{shard} row {row}", tuple(of_row)) for row, of_row in by_row.items()]


def _temperature(job: JobConfig, attempt: int) -> float | None:
    """None for the first attempt, then higher at each: a greedy request would get the same text again."""
    add = job.quality.retry.temperature_add
    # Rounded, since 0.6 + 2 x 0.2 would be 1.0000000000000002 or the like in a log.
    return min(MAX_TEMPERATURE, round(job.sampling.temperature + attempt * add, 6)) if attempt else None


def fatal_receipt(batch: pa.Table, error: PipelineError) -> pa.Table:
    """Return the receipt that ends the run with `error`."""
    return _receipt(batch, kind=BatchKind.FATAL.value, error=pickle.dumps(error))


def drained_receipt(batch: pa.Table) -> pa.Table:
    """Return the receipt of a batch of which no request was sent, since the run drains."""
    return _receipt(batch, kind=BatchKind.DRAINED.value, rows=[])


def _receipt(batch: pa.Table, **result: Any) -> pa.Table:  # noqa: ANN401 - fields of a receipt
    """The receipt of a batch: the fields that both have, and those of `result`."""
    shared = [name for name in RECEIPT.names if name in batch.column_names]
    return Receipt(**(batch.select(shared).to_pylist()[0] | result)).to_table()
