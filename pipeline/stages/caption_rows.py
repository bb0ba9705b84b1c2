"""Builds the caption rows of a batch from its images, their requests and the responses of the engine."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.config.prompt_fields_config import PARENT
from pipeline.engines import EngineResponse
from pipeline.ledger.stale_rows import parent_digest
from pipeline.prompts import Request
from pipeline.quality import PreparedRules, Verdict, count_mentions, evaluate
from schemas.caption_row import CAPTION_ROW
from schemas.status import SKIPS, Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One response of the engine to a request; without text there is no verdict."""

    response: EngineResponse
    seed: int | None
    verdict: Verdict | None

    @property
    def rejected(self) -> bool:
        return self.verdict is not None and self.verdict.status is Status.REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """What the source has for a slot, in place of an answer."""

    text: str | None
    """None: the row is skipped because of it."""
    condition: str
    """The key of the config that took it."""
    flags: tuple[str, ...] = ()
    """Findings of the quality rules about the text, which reject nothing here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestState:
    """One request of one image, with its first seed and its attempts so far."""

    image: Mapping[str, Any]
    """As `schemas.batch.IMAGE`."""
    request: Request
    seed: int | None
    existing: Existing | None = None
    """Then no request is sent."""
    attempts: tuple[Attempt, ...] = ()
    """In order; all but the last were rejected."""


def with_attempt(rules: PreparedRules, state: RequestState, response: EngineResponse, seed: int | None) -> RequestState:
    """Return the request with one more attempt, its text evaluated.

    A later attempt without text, which the engine lost, does not replace the verdict on an earlier text: the row stays
    rejected and does not become failed.
    """
    verdict = None
    if response.text is not None:
        verdict = evaluate(rules, state.request, response.text, response.finish_reason)
    return replace(state, attempts=(*state.attempts, Attempt(response=response, seed=seed, verdict=verdict)))


def rows_table(shard: str, recipe: str, states: Iterable[RequestState]) -> pa.Table:
    """Return the caption rows, in the order given."""
    return pa.Table.from_pylist([_row(shard, recipe, state) for state in states], schema=CAPTION_ROW)


def _row(shard: str, recipe: str, state: RequestState) -> dict[str, Any]:
    image, request = state.image, state.request
    return {
        "shard": shard,
        "slot": request.slot,
        **{name: image[name] for name in _OF_THE_IMAGE},
        **{name: getattr(request, name) for name in _OF_THE_REQUEST},
        "options": list(request.options),
        **_result(image, state),
        "recipe": recipe,
        **_of_the_parent(image, request),
    }


def _of_the_parent(image: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Which texts of the parent the row depends on; nothing for a row that the selection skips."""
    by_selection = image["reason"] in SKIPS - {Reason.NO_PARENT_CAPTION}
    if image["parent_recipe"] is None or not request.parent_slots or by_selection:
        return {"parent_recipe": image["parent_recipe"]}
    captions: Mapping[str, str] = json.loads(image["source"]).get(PARENT, {})
    return {
        "parent_recipe": image["parent_recipe"],
        "parent_slots": list(request.parent_slots),
        "parent_digest": parent_digest(captions.get(slot) for slot in request.parent_slots),
    }


_OF_THE_IMAGE = (
    *("row", "key", "image_sha256", "image_bytes", "image_format", "width", "height", "source"),
    "duplicate_of",
)
_OF_THE_REQUEST = ("mode", "tone", "length_kind", "length_words", "length_class", "name", "prompt", "system")


def _result(image: Mapping[str, Any], state: RequestState) -> dict[str, Any]:
    if state.existing is not None:
        return {**_taken(state.existing), "attempts": 0, "seed": None}
    if not state.attempts:
        of_image = [(image["reason"], image["message"])] if image["reason"] else []
        faults = [*of_image, *([state.request.fault] if state.request.fault else [])]
        # Where the parent has no caption, the row is skipped, whatever else is wrong with the image.
        reason, message = min(faults, key=lambda fault: fault[0] not in SKIPS)
        return {**_without_text(reason, message), "attempts": 0, "seed": None if reason in SKIPS else state.seed}
    last, with_text = state.attempts[-1], [attempt for attempt in state.attempts if attempt.verdict]
    num = {"attempts": len(state.attempts)}
    if not with_text:
        response = last.response
        failed = _without_text((response.reason or Reason.ENGINE_ERROR).value, response.message)
        return {**failed, **num, "seed": last.seed, "prompt_tokens": response.prompt_tokens}
    reasons = [str(attempt.verdict.reason) for attempt in with_text if attempt.verdict and attempt.verdict.reason]
    rejected = [attempt.response.text for attempt in with_text if attempt.rejected]
    return {
        **_evaluated(with_text[-1], state.request),
        **num,
        "earlier_reasons": reasons[: len(with_text) - 1] or None,
        "rejected_text": rejected[-1] if rejected else None,
    }


def _evaluated(attempt: Attempt, request: Request) -> dict[str, Any]:
    response, verdict = attempt.response, attempt.verdict
    assert verdict is not None
    given, mentioned = count_mentions(request.given_items, verdict.text) or (None, None)
    return {
        "status": verdict.status.value,
        "reason": verdict.reason and str(verdict.reason),
        "message": verdict.message,
        "flags": list(verdict.flags),
        "unknown_tags": verdict.unknown_tags,
        "caption": verdict.text if verdict.status is Status.OK else None,
        "words": len(verdict.text.split()),
        "given": given,
        "mentioned": mentioned,
        "prompt_tokens": response.prompt_tokens,
        "caption_tokens": response.caption_tokens,
        "finish_reason": response.finish_reason,
        "seed": attempt.seed,
    }


def _taken(existing: Existing) -> dict[str, Any]:
    if existing.text is None:
        return _without_text(Reason.HAS_CAPTION, existing.condition)
    return {
        "status": Status.OK.value,
        "flags": list(existing.flags),
        "caption": existing.text,
        "words": len(existing.text.split()),
    }


def _without_text(reason: str, message: str | None) -> dict[str, Any]:
    status = Status.SKIPPED if reason in SKIPS else Status.FAILED
    return {"status": status.value, "reason": str(reason), "message": message, "flags": []}
