"""Words against the request. A caption is never cut to its length: it bears a flag, and the reader decides."""

from __future__ import annotations

from itertools import pairwise

from pipeline.quality.finding import JudgedRequest
from schemas.status import Flag

CLASS_WORDS = {"very short": 20, "short": 40, "medium-length": 60, "long": 100, "very long": 200}
"""What the author's judge takes the classes for (fpgaminer/joycaption, the rubric of the notebook)."""


def _bands() -> dict[str, tuple[float, float]]:
    """Each class reaches to the geometric middle between its words and its neighbour's."""
    middles = [(first * second) ** 0.5 for first, second in pairwise(CLASS_WORDS.values())]
    return dict(zip(CLASS_WORDS, pairwise([0.0, *middles, float("inf")]), strict=True))


CLASS_BANDS = _bands()


def allowed_words(asked: JudgedRequest, tolerance: float) -> tuple[float, float] | None:
    """Return the fewest and the most words that keep the request, or None when it has no length."""
    if asked.length_words is not None:
        low = high = float(asked.length_words)
    elif asked.length_class in CLASS_BANDS:
        low, high = CLASS_BANDS[asked.length_class]
    else:
        return None
    return low * (1 - tolerance), high * (1 + tolerance)


def length_flags(asked: JudgedRequest, num_words: int, tolerance: float) -> tuple[Flag, ...]:
    """Return too_short, too_long or nothing."""
    allowed = allowed_words(asked, tolerance)
    if allowed is None or allowed[0] <= num_words <= allowed[1]:
        return ()
    return (Flag.TOO_SHORT,) if num_words < allowed[0] else (Flag.TOO_LONG,)
