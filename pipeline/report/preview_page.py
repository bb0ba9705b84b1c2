"""Captions a sample with the stages of a run, and renders the preview page."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.engines import Engine
from pipeline.images import exact_uri
from pipeline.prompts import Given
from pipeline.report.html import choices, link_of, render
from pipeline.selection import Selection
from pipeline.stages.captioning import Captioner, CaptionSpec, has_pixels, pixels_of
from pipeline.stages.read_batches import ReadSpec, batches_of
from pipeline.stages.source_sample import Sample
from schemas.status import Status

Identity = tuple[str, int]
"""Shard and row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewed:
    """The captions of the sample by one recipe."""

    name: str
    """The job file."""
    recipe: str
    """Fingerprint."""
    model: str
    slots: Sequence[str]
    images: Mapping[Identity, Mapping[str, Any]]
    """As `schemas.batch.IMAGE`, in the order of the sample."""
    pixels: Mapping[Identity, npt.NDArray[np.uint8]]
    """As the model sees them; none for an image that could not be decoded."""
    rows: Mapping[tuple[str, int, str], Mapping[str, Any]]
    """Caption rows by identity."""
    given: Mapping[tuple[str, int, str], Sequence[Given]]
    """What of each prompt comes from the source row, by identity."""
    seconds: float
    """Seconds for captioning alone."""


async def caption_sample(name: str, engine: Engine, spec: CaptionSpec, read: ReadSpec, sample: Sample) -> Previewed:
    """Caption a sample as a run would: with the same requests, seeds, rules and retries.

    Raises:
        EngineDead: the engine cannot be kept alive.
    """
    # The sample is selected already, by the first of two jobs; the source of the second is not used.
    read = replace(read, selection=Selection())
    batches = [
        batch
        for drawn in sample.shards
        for batch in batches_of(read, drawn.shard, drawn.num_images, drawn.rows)
    ]  # fmt: skip
    captioner = Captioner(spec, engine)
    started = time.monotonic()
    tables = await asyncio.gather(*(captioner.rows(batch) for batch in batches))
    seconds = time.monotonic() - started
    rows = [row for table in tables for row in table.to_pylist()]
    images, pixels = _images_of(batches)
    requests = [(identity, captioner.requests(identity[0], image)) for identity, image in images.items()]
    return Previewed(
        name=name,
        recipe=spec.run.recipe,
        model=spec.job.model.id,
        slots=spec.run.slots,
        images=images,
        pixels=pixels,
        rows={(row["shard"], row["row"], row["slot"]): row for row in rows},
        given={(*identity, request.slot): request.given for identity, of_image in requests for request in of_image},
        seconds=seconds,
    )


def _images_of(
    batches: Sequence[pa.Table],
) -> tuple[dict[Identity, Mapping[str, Any]], dict[Identity, npt.NDArray[np.uint8]]]:
    images: dict[Identity, Mapping[str, Any]] = {}
    pixels: dict[Identity, npt.NDArray[np.uint8]] = {}
    for batch in batches:
        shard: str = batch["shard"][0].as_py()
        of_batch: list[dict[str, Any]] = batch["images"][0].as_py()
        images |= {(shard, image["row"]): image for image in of_batch}
        decoded = [(shard, image["row"]) for image in of_batch if has_pixels(image)]
        pixels |= dict(zip(decoded, pixels_of(batch, of_batch), strict=True))
    return images, pixels


def preview_page(title: str, recipes: Sequence[Previewed], sample: Sample) -> str:
    """Return the page: one recipe, or several side by side on the same images."""
    links = {drawn.shard.path: link_of(drawn.shard.url) for drawn in sample.shards}
    slots = list(dict.fromkeys(slot for recipe in recipes for slot in recipe.slots))
    cards = [
        _card(identity, recipes, slots, links[identity[0]])
        for identity in recipes[0].images
    ]  # fmt: skip
    return render(
        "preview.html.jinja",
        {
            "title": title,
            "recipes": [_summary(index, recipe) for index, recipe in enumerate(recipes)],
            "cards": cards,
            "choices": choices(row for card in cards for row in card["labels"]),
            "unreadable": sample.unreadable,
        },
    )


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _summary(index: int, recipe: Previewed) -> dict[str, Any]:
    rows = list(recipe.rows.values())
    return {
        "letter": _letter(index),
        "name": recipe.name,
        "recipe": recipe.recipe,
        "model": recipe.model,
        "rows": len(rows),
        "statuses": [(status.value, sum(row["status"] == status for row in rows)) for status in Status],
        "tokens": sum(row["caption_tokens"] or 0 for row in rows),
        "seconds": f"{recipe.seconds:.1f}",
    }


def _card(identity: Identity, recipes: Sequence[Previewed], slots: Sequence[str], link: str | None) -> dict[str, Any]:
    shard, row = identity
    pixels = next((recipe.pixels[identity] for recipe in recipes if identity in recipe.pixels), None)
    answers: list[dict[str, Any]] = [
        {
            "slot": slot,
            "recipes": [(_letter(index), _answer(recipe, (shard, row, slot))) for index, recipe in enumerate(recipes)],
        }
        for slot in slots
    ]
    rows = [row_of for answer in answers for _, row_of in answer["recipes"] if row_of]
    labels = [{name: [row_of[name] or ""] for name in ("mode", "status", "reason")} for row_of in rows]
    return {
        "shard": shard,
        "row": row,
        "image": recipes[0].images[identity],
        "uri": None if pixels is None or not pixels.size else exact_uri(pixels),
        "side": 0 if pixels is None else len(pixels),
        "answers": answers,
        "labels": labels,
        "data": json.dumps(labels),
        "link": link,
    }


def _answer(recipe: Previewed, identity: tuple[str, int, str]) -> dict[str, Any] | None:
    """The caption row, with its prompt in parts: (text, name of the field that it comes from or None)."""
    row = recipe.rows.get(identity)
    if row is None:
        return None
    prompt, end = row["prompt"], 0
    parts: list[tuple[str, str | None]] = []
    for given in recipe.given[identity]:
        parts += [(prompt[end : given.start], None), (prompt[given.start : given.end], given.field)]
        end = given.end
    return {**row, "prompt_parts": [part for part in [*parts, (prompt[end:], None)] if part[0]]}
