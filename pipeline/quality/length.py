"""Number of words against the requested length. A caption is never cut to its length; the row gets a flag."""

import functools
from itertools import pairwise

from pipeline.models import FAMILIES
from pipeline.quality.rule import JudgedRequest
from schemas.status import Flag


@functools.cache
def _bands(class_words: tuple[tuple[str, int], ...]) -> dict[str, tuple[float, float]]:
    """Each class extends to the geometric mean of its words and its neighbour's."""
    middles = [(low * high) ** 0.5 for (_, low), (_, high) in pairwise(class_words)]
    return dict(zip((name for name, _ in class_words), pairwise([0.0, *middles, float("inf")]), strict=True))


def _band_of(length_class: str) -> tuple[float, float] | None:
    for family in FAMILIES.values():
        if length_class in family.class_words:
            return _bands(tuple(family.class_words.items()))[length_class]
    return None


def allowed_words(request: JudgedRequest, tolerance: float) -> tuple[float, float] | None:
    """Return the minimum and the maximum of words that match the request, or None if it has no known length."""
    if request.length_words is not None:
        band = (float(request.length_words), float(request.length_words))
    else:
        band = None if request.length_class is None else _band_of(request.length_class)
    return band and (band[0] * (1 - tolerance), band[1] * (1 + tolerance))


def length_flags(request: JudgedRequest, num_words: int, tolerance: float) -> tuple[Flag, ...]:
    """Return too_short, too_long or nothing."""
    allowed = allowed_words(request, tolerance)
    if allowed is None or allowed[0] <= num_words <= allowed[1]:
        return ()
    return (Flag.TOO_SHORT,) if num_words < allowed[0] else (Flag.TOO_LONG,)
