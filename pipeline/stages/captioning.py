"""Captions batches: sends their requests to the engine, evaluates every text, stages caption rows as fragments.

Images are independent of each other: one is asked when the engine has room, each of its requests is retried as soon as
its text is rejected, and it is staged with the images of its batch that are done by then.
"""

import asyncio
import json
import pickle
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import JobConfig
from pipeline.config.prompt_fields_config import slot_of
from pipeline.engines import Engine, EngineRequest, EngineResponse, EngineStats
from pipeline.errors import PipelineError
from pipeline.ledger.caption_table import concat_rows, count_statuses
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import staged_within, write_fragment
from pipeline.ledger.shard_tracker import Receipt
from pipeline.ledger.taken_over import from_stream
from pipeline.models.family import Pixels
from pipeline.prompts import CountTokens, Request, RequestSampler, draw_seed, without_prompt
from pipeline.quality import flag_text, prepare_rules
from pipeline.stages.caption_rows import Existing, RequestState, rows_table, with_attempt
from pipeline.stages.dispatch import CrashLimits, Dispatcher
from pipeline.stages.window import Permit, Window, Work
from pipeline.storage import Store
from schemas.batch import RECEIPT, RECEIPTS, BatchKind
from schemas.shard import Shard
from schemas.status import SKIPS

MAX_TEMPERATURE = 2.0
"""As for `sampling.temperature`."""

NO_PIXELS: Pixels = np.zeros((0, 0, 3), np.uint8)
"""Of a request without an image."""

Frames = dict[int, Pixels]
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


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """Caption rows of finished images of one batch: one fragment."""

    table: pa.Table
    """As `schemas.caption_row`."""
    images: Sequence[Mapping[str, Any]]
    """As `schemas.batch.IMAGE`, in row order."""
    num_taken_over: int
    """Caption rows that come from an earlier output."""


StageRows = Callable[[FinishedRows], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class _Finished:
    image: Mapping[str, Any]
    states: Sequence[RequestState]


class Captioner:
    """Turns batches into caption rows, many concurrently, on one event loop; keeps none of them."""

    def __init__(self, spec: CaptionSpec, engine: Engine, num_seqs: int | None = None) -> None:
        """Build from a spec.

        Args:
            spec: what to caption.
            engine: what answers.
            num_seqs: requests that the engine decodes together; None sends the requests of a batch all at once.
        """
        limits = CrashLimits(per_image=spec.job.engine.max_crashes_per_image, restarts=spec.job.engine.max_restarts)
        self._spec = spec
        self._sampler = RequestSampler(spec.job, _token_counter(spec))
        self._dispatcher = Dispatcher(engine, limits)
        self.window = Window(num_seqs)
        self._engine = engine
        self._stats = CaptionStats()
        self._rules = prepare_rules(spec.job.quality, spec.vocabulary, spec.clip_tokenizer)
        self._existing_fields = {slot.slot: slot.existing.field for slot in spec.job.captions if slot.existing}

    def stats(self) -> CaptionStats:
        """Return the counts so far; may be called from any thread."""
        return replace(self._stats, restarts=self._dispatcher.restarts, engine=self._engine.stats())

    def close(self) -> None:
        """Send no further image to the engine: the run drains. Call it on the event loop."""
        self.window.close()

    async def rows(self, batch: pa.Table) -> pa.Table:
        """Return the caption rows (`schemas.caption_row`) of a batch of images (`schemas.batch.BATCH`).

        Raises:
            EngineDead: the engine cannot be kept alive.
        """
        tables: list[pa.Table] = []

        async def keep(finished: FinishedRows) -> None:
            tables.append(finished.table)

        await self.caption(batch, len(batch["images"][0]), keep)
        return concat_rows(tables)

    async def caption(
        self, batch: pa.Table, fragment_images: int, stage: StageRows, done_rows: Collection[int] = ()
    ) -> None:
        """Pass the caption rows of the images of a batch to `stage`, at most `fragment_images` asked images at a time.

        Images in `done_rows`, and images that the drain of the run leaves unasked, are not passed.

        Raises:
            EngineDead: the engine cannot be kept alive.
        """
        shard: str = batch["shard"][0].as_py()
        images: list[dict[str, Any]] = batch["images"][0].as_py()
        taken_over = from_stream(batch["taken_over"][0].as_py())
        done = set(zip(taken_over["row"].to_pylist(), taken_over["slot"].to_pylist(), strict=True))
        frames = _frames(images, pixels_of(batch, images))

        async def stage_images(finished: list[_Finished]) -> None:
            await stage(await asyncio.to_thread(self._finished_rows, shard, finished, taken_over))

        works = (
            self._work(shard, image, frames.get(image["row"], NO_PIXELS), done)
            for image in images
            if image["row"] not in done_rows
        )
        await self.window.run(works, fragment_images, stage_images)

    def _work(
        self, shard: str, image: Mapping[str, Any], pixels: Pixels, done: Collection[tuple[int, str]]
    ) -> Work[_Finished]:
        """What one image needs: an answer to each of its requests that are sent."""
        states = [state for state in self._states(shard, image) if (image["row"], state.request.slot) not in done]
        asked = [
            index
            for index, state in enumerate(states)
            if image["reason"] is None and state.existing is None and not state.request.fault
        ]

        async def run(permit: Permit) -> _Finished:
            answering = (self._answered(shard, states[index], pixels, permit) for index in asked)
            for index, state in zip(asked, await asyncio.gather(*answering), strict=True):
                states[index] = state
            return _Finished(image, states)

        return Work(len(asked), run)

    def _finished_rows(self, shard: str, finished: Sequence[_Finished], taken_over: pa.Table) -> FinishedRows:
        finished = sorted(finished, key=lambda item: item.image["row"])
        images = [item.image for item in finished]
        table = rows_table(shard, self._spec.run.recipe, [state for item in finished for state in item.states])
        if taken_over.num_rows:
            rows = pa.array([image["row"] for image in images], pa.int64())
            taken_over = taken_over.filter(pc.call_function("is_in", [taken_over["row"]], pc.SetLookupOptions(rows)))
            table = concat_rows([table, taken_over])
        return FinishedRows(table, images, taken_over.num_rows)

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

    async def _answered(self, shard: str, state: RequestState, pixels: Pixels, permit: Permit) -> RequestState:
        """Send a request to the engine, and retry it while the rules reject its text, as `quality.retry` says."""
        name = f"{shard} row {state.image['row']}"
        for attempt in range(self._spec.job.quality.retry.attempts + 1):
            request = self._engine_request(shard, state, pixels, attempt)
            response = await self._dispatcher.answer(name, request)
            self._count(response, retry=attempt > 0)
            state = with_attempt(self._rules, state, response, request.seed)
            if not state.attempts[-1].rejected:
                break
        permit.answered()
        return state

    def requests(self, shard: str, image: Mapping[str, Any]) -> list[Request]:
        """Return the requests of an image of a batch (`schemas.batch.IMAGE`), in slot order.

        Those of a skipped image are not sent, so they need no field: its placeholders stay in their prompts.
        """
        worded = self._sampler.uses_fields and image["reason"] not in SKIPS
        metadata = json.loads(image["source"]) if worded else None
        return self._sampler.requests(shard, image["row"], metadata)

    def _count(self, response: EngineResponse, *, retry: bool) -> None:
        stats, has_text = self._stats, response.text is not None
        self._stats = replace(
            stats,
            questions=stats.questions + 1,
            repairs=stats.repairs + retry,
            prompt_tokens=stats.prompt_tokens + (response.prompt_tokens or 0 if has_text else 0),
            caption_tokens=stats.caption_tokens + (response.caption_tokens or 0),
        )

    def _seed(self, shard: str, row: int, slot: str, attempt: int) -> int | None:
        if not self._spec.job.sampling.seeded:
            return None
        return draw_seed(self._spec.job.seed, shard, row, slot, self._spec.first_attempt + attempt)

    def _engine_request(self, shard: str, state: RequestState, pixels: Pixels, attempt: int) -> EngineRequest:
        row, request = state.image["row"], state.request
        return EngineRequest(
            id=f"{shard}#{row}#{request.slot}#{attempt}",
            pixels=pixels,
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

    def __init__(
        self, spec: CaptionSpec, engine: Engine, store: Store, num_seqs: int | None = None, *, takes_over: bool = False
    ) -> None:
        """Build from a spec.

        Args:
            spec: what to caption.
            engine: what answers.
            store: of the output.
            num_seqs: as for `Captioner`.
            takes_over: whether a former process of this replica has died. It may have staged images of a batch without
                a receipt; they are taken over when the batch is repeated.
        """
        self._takes_over = takes_over
        self._run = spec.run
        self._store = store
        self._fragment_images = spec.job.engine.batch_images
        self._captioner = Captioner(spec, engine, num_seqs)

    def stats(self) -> CaptionStats:
        """Return the counts so far; may be called from any thread."""
        return self._captioner.stats()

    @property
    def num_asked(self) -> int:
        """Images so far that were sent to the engine, or needed nothing of it; may be read from any thread."""
        return self._captioner.window.num_admitted

    @property
    def num_staged(self) -> int:
        """Images so far in fragments; may be read from any thread."""
        return self._captioner.window.num_staged

    def close(self) -> None:
        """As `Captioner.close`."""
        self._captioner.close()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Caption a batch (`schemas.batch.BATCH`); return its receipts (`schemas.batch.RECEIPT`), one a fragment.

        Raises:
            EngineDead: the engine cannot be kept alive.
            StoreError: a fragment cannot be written.
        """
        if batch["kind"][0].as_py() != BatchKind.IMAGES:
            return _receipt(batch)
        head = batch.select(["shard", "size", "etag", "num_images"]).to_pylist()[0]
        images = batch["images"][0].as_py() if self._takes_over else []
        receipts = await asyncio.to_thread(self._staged_before, head, images) if images else []
        done_rows = {row for receipt in receipts for row in receipt["rows"][0].as_py()}

        async def stage(finished: FinishedRows) -> None:
            receipts.append(await asyncio.to_thread(self._stage, head, finished))

        await self._captioner.caption(batch, self._fragment_images, stage, done_rows)
        return pa.concat_tables(receipts) if receipts else drained_receipt(batch)

    def _staged_before(self, head: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> list[pa.Table]:
        skipped = {image["row"]: image["reason"] in SKIPS for image in images}
        fragments = staged_within(self._store, self._run, _shard_of(head), head["num_images"], skipped.keys())
        return [
            Receipt(
                kind=BatchKind.IMAGES.value,
                shard=head["shard"],
                num_images=head["num_images"],
                statuses=count_statuses(fragment.table),
                num_skipped=sum(skipped[row] for row in fragment.info.rows.tolist()),
                fragment=fragment.info.path,
                rows=fragment.info.rows.tolist(),
            ).to_table()
            for fragment in fragments
        ]

    def _stage(self, head: Mapping[str, Any], finished: FinishedRows) -> pa.Table:
        shard = _shard_of(head)
        receipt = Receipt(
            kind=BatchKind.IMAGES.value,
            shard=shard.path,
            num_images=head["num_images"],
            statuses=count_statuses(finished.table),
            num_taken_over=finished.num_taken_over,
            num_skipped=sum(image["reason"] in SKIPS for image in finished.images),
            fragment=write_fragment(self._store, self._run, shard, head["num_images"], finished.table),
            rows=[image["row"] for image in finished.images],
        )
        return receipt.to_table()


def _shard_of(head: Mapping[str, Any]) -> Shard:
    return Shard(path=head["shard"], url="", size=head["size"], etag=head["etag"])


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


def pack_receipts(receipts: pa.Table) -> pa.Table:
    """Return the receipts of a batch as one row (`schemas.batch.RECEIPTS`)."""
    return pa.Table.from_pylist([{"receipts": receipts.to_pylist()}], schema=RECEIPTS)


def unpack_receipts(block: pa.Table) -> list[Receipt]:
    """Return the receipts of some batches; a block of a reader that found nothing to do has none, and no column."""
    if not block.num_rows:
        return []
    return [Receipt.from_row(row) for receipts in block["receipts"].to_pylist() for row in receipts]


def _receipt(batch: pa.Table, **result: Any) -> pa.Table:  # noqa: ANN401 - fields of a receipt
    """The receipt of a batch: the fields that both have, and those of `result`."""
    shared = [name for name in RECEIPT.names if name in batch.column_names]
    return Receipt(**(batch.select(shared).to_pylist()[0] | result)).to_table()
