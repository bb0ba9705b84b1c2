"""Rating, quality and era terms of a record, from the tables of a preset."""

import bisect
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.config import QualityBy, Rating, Steps, WordsConfig

DATABASE_RATINGS: Mapping[int, Rating] = dict(enumerate(Rating))
"""`post.rating` of the danbooru2023 metadata database: 0 general .. 3 explicit."""
LETTER_RATINGS: Mapping[str, Rating] = {
    "g": Rating.GENERAL,
    "s": Rating.SENSITIVE,
    "q": Rating.QUESTIONABLE,
    "e": Rating.EXPLICIT,
}
"""Danbooru's API since 2022; earlier, and on other boorus, `s` means `safe`."""


def term_of(steps: Steps, number: float) -> str | None:
    """Return the term of the highest step that the number reaches."""
    for low, term in steps.steps:
        if number > low or (number == low and not steps.strict):
            return term
    return steps.below


class Percentiles:
    """Percentiles within groups, from a sample of each group; built once, pickles."""

    def __init__(self, values: Iterable[tuple[Hashable, float]]) -> None:
        """Take (group, number) pairs of a data set, or of a sample of it."""
        groups: dict[Hashable, list[float]] = {}
        for group, value in values:
            groups.setdefault(group, []).append(value)
        self._sorted = {group: sorted(numbers) for group, numbers in groups.items()}

    def __call__(self, group: Hashable, value: float) -> float | None:
        """Return the percentile in [0, 100]; equal numbers share the middle one. None for an unknown group."""
        numbers = self._sorted.get(group)
        if not numbers:
            return None
        ranks = bisect.bisect_left(numbers, value) + bisect.bisect_right(numbers, value)
        return 50 * ranks / len(numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """The figures of one image from which its quality and era terms follow."""

    rating: Rating | None = None
    score: int | None = None
    favorites: int | None = None
    year: int | None = None


class QualityTerms:
    """Quality and era terms of the records of one source; built once per process from its popularity figures."""

    def __init__(self, config: WordsConfig, images: Iterable[Popularity] = ()) -> None:
        """Take the images from which percentiles are computed; `quality_by: score` needs none."""
        self._config = config
        sample = list(images) if config.quality_by not in (QualityBy.SCORE, QualityBy.NONE) else []
        by_year = config.quality_by is QualityBy.SCORE_AND_FAVORITES_IN_YEAR
        self._favorites = Percentiles(
            (image.year if by_year else image.rating, image.favorites)
            for image in sample
            if image.favorites is not None
        )
        self._scores = Percentiles((image.year, image.score) for image in sample if image.score is not None)

    def __call__(self, image: Popularity) -> list[str]:
        """Return the terms of the quality line, the era last; no term for a figure that is unknown."""
        number = self._number(image)
        eras = self._config.eras
        quality = term_of(self._config.quality, number) if number is not None else None
        era = term_of(eras, image.year) if eras and image.year is not None else None
        return [term for term in (quality, era) if term]

    def _number(self, image: Popularity) -> float | None:
        """Return the number that `quality` maps to a term: the score, or the mean of the known percentiles."""
        match self._config.quality_by:
            case QualityBy.SCORE:
                return image.score
            case QualityBy.FAVORITES_IN_RATING:
                return None if image.favorites is None else self._favorites(image.rating, image.favorites)
            case QualityBy.SCORE_AND_FAVORITES_IN_YEAR:
                favorites = None if image.favorites is None else self._favorites(image.year, image.favorites)
                score = None if image.score is None else self._scores(image.year, image.score)
                known = [percentile for percentile in (favorites, score) if percentile is not None]
                return sum(known) / len(known) if known else None
            case _:
                return None


def rating_terms(config: WordsConfig, rating: Rating | None) -> list[str]:
    """Return the terms of the rating line; none for an unknown rating."""
    return list(config.ratings.get(rating, ())) if rating else []
