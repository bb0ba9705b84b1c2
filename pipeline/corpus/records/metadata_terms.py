"""Rating, quality and era words of a record, by the tables of a preset."""

from __future__ import annotations

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
"""danbooru's API since 2022; before, and on other boorus, `s` is `safe`."""


def word_of(steps: Steps, number: float) -> str | None:
    """Return the word of the highest step that the number reaches."""
    for low, word in steps.steps:
        if number > low or (number == low and not steps.strict):
            return word
    return steps.below


class Percentiles:
    """Percentiles within groups, from a sample of each; built once, pickles."""

    def __init__(self, values: Iterable[tuple[Hashable, float]]) -> None:
        """Take (group, number) pairs: all of a data set, or a sample of it."""
        groups: dict[Hashable, list[float]] = {}
        for group, value in values:
            groups.setdefault(group, []).append(value)
        self._sorted = {group: sorted(numbers) for group, numbers in groups.items()}

    def __call__(self, group: Hashable, value: float) -> float | None:
        """Return the percentile in [0, 100] of a number: the middle of its equals; None for an unknown group."""
        numbers = self._sorted.get(group)
        if not numbers:
            return None
        ranks = bisect.bisect_left(numbers, value) + bisect.bisect_right(numbers, value)
        return 50 * ranks / len(numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """What a source counts of an image."""

    rating: Rating | None = None
    score: int | None = None
    favorites: int | None = None
    year: int | None = None


class QualityWords:
    """Quality and era words of the records of one source; built once per process from its counts."""

    def __init__(self, config: WordsConfig, images: Iterable[Popularity] = ()) -> None:
        """Take the counts that percentiles are of; by score none are needed."""
        self._config = config
        seen = list(images) if config.quality_by not in (QualityBy.SCORE, QualityBy.NONE) else []
        by_year = config.quality_by is QualityBy.SCORE_AND_FAVORITES_IN_YEAR
        self._favorites = Percentiles(
            (one.year if by_year else one.rating, one.favorites) for one in seen if one.favorites is not None
        )
        self._scores = Percentiles((one.year, one.score) for one in seen if one.score is not None)

    def __call__(self, image: Popularity) -> list[str]:
        """Return the words of the quality line, the era last; none for what is not counted."""
        number = self._number(image)
        eras = self._config.eras
        quality = word_of(self._config.quality, number) if number is not None else None
        era = word_of(eras, image.year) if eras and image.year is not None else None
        return [word for word in (quality, era) if word]

    def _number(self, image: Popularity) -> float | None:
        """Return what `quality` is a table of; a mean of what is known."""
        match self._config.quality_by:
            case QualityBy.SCORE:
                return image.score
            case QualityBy.FAVORITES_IN_RATING:
                return None if image.favorites is None else self._favorites(image.rating, image.favorites)
            case QualityBy.SCORE_AND_FAVORITES_IN_YEAR:
                favorites = None if image.favorites is None else self._favorites(image.year, image.favorites)
                score = None if image.score is None else self._scores(image.year, image.score)
                known = [one for one in (favorites, score) if one is not None]
                return sum(known) / len(known) if known else None
            case _:
                return None


def rating_words(config: WordsConfig, rating: Rating | None) -> list[str]:
    """Return the words of the rating line; none for an unknown rating."""
    return list(config.ratings.get(rating, ())) if rating else []
