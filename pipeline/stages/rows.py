"""Caption rows from a batch's images, their requests and the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.engines import Answer
from pipeline.prompts import Request
from pipeline.quality import judge
from schemas.caption_row import CAPTION_ROW
from schemas.status import Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of one image, with its seed and, if it reached the engine, its answer."""

    image: Mapping[str, Any]
    """An `schemas.batch.IMAGE`."""
    request: Request
    seed: int
    answer: Answer | None


def rows_table(shard: str, recipe: str, asked: Iterable[Asked]) -> pa.Table:
    """Return the caption rows, in the order given."""
    return pa.Table.from_pylist([_row(shard, recipe, one) for one in asked], schema=CAPTION_ROW)


def _row(shard: str, recipe: str, asked: Asked) -> dict[str, Any]:
    image, request = asked.image, asked.request
    return {
        "shard": shard,
        "row": image["row"],
        "key": image["key"],
        "slot": request.slot,
        **{name: image[name] for name in ("image_sha256", "image_bytes", "image_format", "width", "height", "source")},
        **{name: getattr(request, name) for name in ("mode", "tone", "length_kind", "length_words", "length_class")},
        "options": list(request.options),
        **{name: getattr(request, name) for name in ("name", "prompt", "system")},
        **_outcome(image, asked.answer),
        "seed": asked.seed,
        "recipe": recipe,
    }


def _outcome(image: Mapping[str, Any], answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return _failed(image["reason"], image["message"], attempts=0)
    if answer.text is None:
        reason = answer.reason or Reason.ENGINE_ERROR
        return {**_failed(reason.value, answer.message, attempts=1), "prompt_tokens": answer.prompt_tokens}
    verdict = judge(answer.text, answer.finish_reason)
    ok = verdict.status is Status.OK
    return {
        "status": verdict.status.value,
        "reason": verdict.reason.value if verdict.reason else None,
        "message": verdict.message,
        "flags": list(verdict.flags),
        "caption": answer.text if ok else None,
        "rejected_text": None if ok else answer.text,
        "words": len(answer.text.split()),
        "prompt_tokens": answer.prompt_tokens,
        "caption_tokens": answer.caption_tokens,
        "finish_reason": answer.finish_reason,
        "attempts": 1,
    }


def _failed(reason: str, message: str | None, *, attempts: int) -> dict[str, Any]:
    return {"status": Status.FAILED.value, "reason": reason, "message": message, "flags": [], "attempts": attempts}


def count_statuses(statuses: Sequence[str]) -> dict[str, int]:
    """Return the number of rows per status, zeros included."""
    return {status.value: statuses.count(status.value) for status in Status}
