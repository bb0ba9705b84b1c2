"""Batches in, receipts out: every image asked, every text judged, the caption rows staged as one fragment."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import JobConfig
from pipeline.engines import Answer, Engine, Question
from pipeline.errors import PipelineError
from pipeline.ledger.footer import RunFacts
from pipeline.ledger.fragments import write_fragment
from pipeline.prompts import Asker, draw_seed
from pipeline.stages.ask import Asking, DeathLimits, ImageQuestions
from pipeline.stages.rows import Asked, count_statuses, rows_table
from pipeline.storage import Store
from schemas.batch import RECEIPT, BatchKind
from schemas.shard import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSpec:
    """What captioning needs besides an engine; pickles."""

    job: JobConfig
    run: RunFacts
    side_px: int
    first_attempt: int = 0
    """Attempts that a retry counts on: its questions are asked with other seeds than those before."""


class Caption:
    """Captions batches, many at once, on one event loop."""

    def __init__(self, spec: CaptionSpec, engine: Engine, store: Store) -> None:
        limits = DeathLimits(per_image=spec.job.engine.max_deaths_per_image, restarts=spec.job.engine.max_restarts)
        self._spec = spec
        self._store = store
        self._asker = Asker(spec.job)
        self._asking = Asking(engine, limits)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Caption a batch (`schemas.batch.BATCH`) and return its receipt (`schemas.batch.RECEIPT`).

        Raises:
            EngineDead: the engine cannot be kept alive.
            StoreError: the fragment cannot be written.
        """
        head = batch.drop_columns(["images", "pixels"]).to_pylist()[0]
        if head["kind"] != BatchKind.IMAGES:
            return _receipt(head)
        images: list[dict[str, Any]] = batch["images"][0].as_py()
        asked = await self._ask(head["shard"], images, _pixels(batch, images, self._spec.side_px))
        return await asyncio.to_thread(self._stage, head, images, asked)

    async def _ask(self, shard: str, images: Sequence[Mapping[str, Any]], pixels: npt.NDArray[np.uint8]) -> list[Asked]:
        unanswered = [
            Asked(image=image, request=request, seed=self._seed(shard, image["row"], request.slot), answer=None)
            for image in images
            for request in self._asker.requests(shard, image["row"])
        ]
        questions = _questions(shard, images, unanswered, pixels)
        answers = await self._asking.ask(questions)
        return [_with_answer(one, answers.get(_question_id(shard, one))) for one in unanswered]

    def _seed(self, shard: str, row: int, slot: str) -> int:
        return draw_seed(self._spec.job.seed, shard, row, slot, self._spec.first_attempt)

    def _stage(self, head: Mapping[str, Any], images: Sequence[Mapping[str, Any]], asked: Sequence[Asked]) -> pa.Table:
        shard = Shard(path=head["shard"], url="", size=head["size"], etag=head["etag"])
        table = rows_table(shard.path, self._spec.run.recipe, asked)
        path = write_fragment(self._store, self._spec.run, shard, head["num_rows"], table)
        statuses: list[str] = table["status"].to_pylist()
        rows = [image["row"] for image in images]
        return _receipt({**head, **count_statuses(statuses), "fragment": path, "rows": rows})


def _pixels(batch: pa.Table, images: Sequence[Mapping[str, Any]], side: int) -> npt.NDArray[np.uint8]:
    """The decoded images, shape (images without reason, side, side, 3): a view into the batch."""
    buffer = batch["pixels"][0].as_buffer()
    num = sum(image["reason"] is None for image in images)
    return np.frombuffer(buffer, np.uint8).reshape(num, side, side, 3)


def _questions(
    shard: str, images: Sequence[Mapping[str, Any]], asked: Sequence[Asked], pixels: npt.NDArray[np.uint8]
) -> list[ImageQuestions]:
    by_row: dict[int, list[Asked]] = {}
    for one in asked:
        by_row.setdefault(one.image["row"], []).append(one)
    decoded = [image for image in images if image["reason"] is None]
    return [
        ImageQuestions(
            f"{shard} row {image['row']}",
            tuple(_question(shard, one, frame) for one in by_row[image["row"]]),
        )
        for image, frame in zip(decoded, pixels, strict=True)
    ]


def _question(shard: str, asked: Asked, pixels: npt.NDArray[np.uint8]) -> Question:
    return Question(
        id=_question_id(shard, asked),
        pixels=pixels,
        # Equal bytes give equal pixels: the images part of the recipe is one per run.
        image_id=asked.image["image_sha256"],
        system=asked.request.system,
        prompt=asked.request.prompt,
        seed=asked.seed,
    )


def _question_id(shard: str, asked: Asked) -> str:
    return f"{shard}#{asked.image['row']}#{asked.request.slot}"


def _with_answer(asked: Asked, answer: Answer | None) -> Asked:
    return Asked(image=asked.image, request=asked.request, seed=asked.seed, answer=answer)


def fatal_receipt(batch: pa.Table, error: PipelineError) -> pa.Table:
    """Return the receipt that ends the run with `error`."""
    head = batch.select(["shard", "num_rows", "rows"]).to_pylist()[0]
    return _receipt({**head, "kind": BatchKind.FATAL.value, "error": pickle.dumps(error)})


def skipped_receipt(batch: pa.Table) -> pa.Table:
    """Return the receipt of a batch that nobody was asked about, since the run is stopping."""
    head = batch.select(["shard", "num_rows"]).to_pylist()[0]
    return _receipt({**head, "kind": BatchKind.SKIPPED.value, "rows": []})


def _receipt(head: Mapping[str, Any]) -> pa.Table:
    counts = {"ok": 0, "rejected": 0, "failed": 0}
    row = {name: head.get(name, counts.get(name)) for name in RECEIPT.names}
    return pa.Table.from_pylist([row], schema=RECEIPT)
