"""Caption rows from a batch's images, their requests and the answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.engines import EngineResponse
from pipeline.prompts import Request
from pipeline.quality import PreparedRules, Verdict, evaluate
from schemas.caption_row import CAPTION_ROW
from schemas.status import Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One time that the engine was asked; without text there is no verdict."""

    answer: EngineResponse
    seed: int | None
    verdict: Verdict | None

    @property
    def rejected(self) -> bool:
        return self.verdict is not None and self.verdict.status is Status.REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestState:
    """One request of one image, with its first seed and what became of it each time that it reached the engine."""

    image: Mapping[str, Any]
    """An `schemas.batch.IMAGE`."""
    request: Request
    seed: int | None
    attempts: tuple[Attempt, ...] = ()
    """In order; all but the last were rejected."""


def evaluated(rules: PreparedRules, asked: RequestState, answer: EngineResponse, seed: int | None) -> RequestState:
    """Return the request with one attempt more.

    A further attempt that brought no text, since the engine lost it, leaves the verdict of the one before
    the last word: text came, and the rules refused it.
    """
    verdict = None if answer.text is None else evaluate(rules, asked.request, answer.text, answer.finish_reason)
    attempts = (*asked.attempts, Attempt(answer=answer, seed=seed, verdict=verdict))
    return replace(asked, attempts=attempts)


def rows_table(shard: str, recipe: str, asked: Iterable[RequestState]) -> pa.Table:
    """Return the caption rows, in the order given."""
    return pa.Table.from_pylist([_row(shard, recipe, one) for one in asked], schema=CAPTION_ROW)


def _row(shard: str, recipe: str, asked: RequestState) -> dict[str, Any]:
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
        **_outcome(image, asked),
        "recipe": recipe,
    }


def _outcome(image: Mapping[str, Any], asked: RequestState) -> dict[str, Any]:
    told = [attempt for attempt in asked.attempts if attempt.verdict]
    if not asked.attempts:
        return {**_failed(image["reason"], image["message"]), "attempts": 0, "seed": asked.seed}
    num, last = len(asked.attempts), asked.attempts[-1]
    if not told:
        answer = last.answer
        failed = _failed((answer.reason or Reason.ENGINE_ERROR).value, answer.message)
        return {**failed, "attempts": num, "seed": last.seed, "prompt_tokens": answer.prompt_tokens}
    reasons = [str(attempt.verdict.reason) for attempt in told if attempt.verdict and attempt.verdict.reason]
    refused = [attempt.answer.text for attempt in told if attempt.rejected]
    return {
        **_told(told[-1]),
        "earlier_reasons": reasons[: len(told) - 1] or None,
        "rejected_text": refused[-1] if refused else None,
        "attempts": num,
        "seed": told[-1].seed,
    }


def _told(attempt: Attempt) -> dict[str, Any]:
    answer, verdict = attempt.answer, attempt.verdict
    assert verdict is not None
    return {
        "status": verdict.status.value,
        "reason": verdict.reason and str(verdict.reason),
        "message": verdict.message,
        "flags": list(verdict.flags),
        "unknown_tags": verdict.unknown_tags,
        "caption": verdict.text if verdict.status is Status.OK else None,
        "words": len(verdict.text.split()),
        "prompt_tokens": answer.prompt_tokens,
        "caption_tokens": answer.caption_tokens,
        "finish_reason": answer.finish_reason,
    }


def _failed(reason: str, message: str | None) -> dict[str, Any]:
    return {"status": Status.FAILED.value, "reason": reason, "message": message, "flags": []}
