"""The verdict on one text: `ok`, perhaps with flags, or `rejected` with a reason. Pure; no engine, no Ray."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.status import Reason, Status

TRUNCATED = "truncated"
"""Flag: the text ended because `sampling.max_tokens` did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rules say of a text."""

    status: Status
    reason: Reason | None = None
    message: str | None = None
    flags: tuple[str, ...] = ()


def judge(text: str, finish_reason: str | None) -> Verdict:
    """Judge a text by the rules of `pipeline.recipe.QUALITY_RULES`."""
    if not text.strip():
        return Verdict(
            status=Status.REJECTED, reason=Reason.EMPTY_CAPTION, message="the model ended without writing a word"
        )
    return Verdict(status=Status.OK, flags=(TRUNCATED,) if finish_reason == "length" else ())
