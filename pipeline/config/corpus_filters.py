"""Which records a corpus keeps and how often each is drawn: plain conditions on the fields of a record, no code."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import AS_LIST, ConfigPart, refuse_repeats
from pipeline.config.corpus_presets import Rating
from schemas.corpus_row import Task

Number = Annotated[float, Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], AS_LIST]


class Range(ConfigPart):
    """Numbers from `min` to `max`, both included; at least one of the two is given."""

    min: Number | None = None
    """Smallest number that is kept; null: no limit."""
    max: Number | None = None
    """Largest number that is kept; null: no limit."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("found neither min nor max; allowed: at least one of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"found min {self.min:g} above max {self.max:g}; allowed: min up to max")
        return self


class PercentileGroup(StrEnum):
    """The records among which a percentile is computed."""

    SOURCE = "source"
    """All records of the source."""
    RATING = "rating"
    """Those of the source with the same rating."""
    YEAR = "year"
    """Those of the source of the same year."""


class PercentileRange(Range):
    """Percentiles, from 0 to 100, among all records of a source, before any filter."""

    min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Smallest percentile that is kept: 80 keeps the upper fifth; null: no limit."""
    max: Annotated[float, Field(ge=0, le=100)] | None = None
    """Largest percentile that is kept; null: no limit."""
    within: PercentileGroup = PercentileGroup.SOURCE
    """The records among which the percentile is computed."""


class TagFilter(ConfigPart):
    """Tags that a record must have or must not have, of any type. Blacklisted tags count, and aliases are replaced."""

    all: Names = ()
    """Tags that must all be present."""
    any: Names = ()
    """Tags of which at least one must be present."""
    none: Names = ()
    """Tags that must be absent."""

    @model_validator(mode="after")
    def _names_tags(self) -> Self:
        if not (self.all or self.any or self.none):
            raise ValueError("found none of all, any and none; allowed: at least one of them, with tags")
        both = sorted({*self.all, *self.any}.intersection(self.none))
        if both:
            raise ValueError(f"found {', '.join(both)} as present and as absent; allowed: each tag in one of them")
        return self


class MissingValue(StrEnum):
    """What happens to a record in which the field of a condition is unknown."""

    DROP = "drop"
    """The record is dropped and counted as `dropped_filter_<field>_missing`."""
    KEEP = "keep"
    """The condition is taken as true. The record is counted as `filter_<field>_missing_kept` if it is kept."""


class FilterField(StrEnum):
    """The conditions of a filter, in the order in which they are evaluated; each is a key of `FilterConfig`."""

    RATING = "rating"
    SCORE = "score"
    FAVORITES = "favorites"
    SCORE_PERCENTILE = "score_percentile"
    FAVORITES_PERCENTILE = "favorites_percentile"
    WIDTH = "width"
    HEIGHT = "height"
    SHORTER_SIDE = "shorter_side"
    PIXELS = "pixels"
    ASPECT = "aspect"
    YEAR = "year"
    LANGUAGE = "language"
    TAGS = "tags"
    SHORT_WORDS = "short_words"
    SHORT_CHARS = "short_chars"
    LONG_WORDS = "long_words"
    LONG_CHARS = "long_chars"


class FilterConfig(ConfigPart):
    """Conditions on the records of some sources. A record must meet all conditions of all filters of its source."""

    sources: Names = ()
    """Names of captions and tables; by default all sources of records."""
    missing: MissingValue = MissingValue.DROP
    """What happens to a record in which the field of a condition is unknown."""
    rating: Annotated[tuple[Rating, ...], AS_LIST] = ()
    """Ratings that are kept; by default all."""
    score: Range | None = None
    """Score in the data set."""
    favorites: Range | None = None
    """Number of users who marked the image as a favourite."""
    score_percentile: PercentileRange | None = None
    """Percentile of the score; records with the same score share the middle of their percentiles."""
    favorites_percentile: PercentileRange | None = None
    """Percentile of the favourites, as for the score."""
    width: Range | None = None
    """Width in px."""
    height: Range | None = None
    """Height in px."""
    shorter_side: Range | None = None
    """The smaller one of width and height, in px."""
    pixels: Range | None = None
    """Width x height."""
    aspect: Range | None = None
    """Width / height."""
    year: Range | None = None
    """Year of publication."""
    language: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z]{2,3}$")], ...], AS_LIST] = ()
    """Languages that are kept, as ISO 639 codes such as en; by default all. Needs `languages`, or a column for the
    field `language`."""
    tags: TagFilter | None = None
    """Tags that must be present or absent. A record without any tag has no value for this condition."""
    short_words: Range | None = None
    """Words of the short caption, separated by blanks. For Chinese or Japanese use `short_chars`."""
    short_chars: Range | None = None
    """Characters of the short caption."""
    long_words: Range | None = None
    """Words of the long caption."""
    long_chars: Range | None = None
    """Characters of the long caption."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not self.fields:
            raise ValueError(f"found no condition; allowed: at least one of {', '.join(FilterField)}")
        return self

    @property
    def fields(self) -> tuple[FilterField, ...]:
        """The conditions that are given, in the order of their evaluation."""
        return tuple(field for field in FilterField if getattr(self, field) not in (None, ()))

    def applies_to(self, source: str) -> bool:
        """Whether the records of a source must meet the conditions."""
        return not self.sources or source in self.sources


class ScheduleConfig(ConfigPart):
    """What is drawn from some sources in some epochs: a weight, a choice of tasks, or both.

    Of several entries for the same source and epoch, the first one with a weight decides the weight, and the first one
    with tasks the tasks.
    """

    sources: Names = ()
    """Names of captions and tables; by default all sources of records."""
    first_epoch: int = Field(default=0, ge=0)
    """First epoch of the entry; epochs count from 0."""
    last_epoch: int | None = Field(default=None, ge=0)
    """Last epoch of the entry, included; null: the last one of the corpus."""
    weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    """Texts that are drawn for each record in each of these epochs, each on its own: 3 draws three, 0.25 draws one for
    a quarter of the records, another quarter in each epoch, 0 draws none; null: one, or as another entry says."""
    tasks: Annotated[tuple[Task, ...], AS_LIST] = ()
    """The only tasks that are drawn, with the weights of `render.styles`; by default all. Records without such a task
    have no text and are counted as `unrendered_no_weight`."""

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        refuse_repeats("tasks", tasks)
        return tasks

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.weight is None and not self.tasks:
            raise ValueError("found neither weight nor tasks; allowed: at least one of them")
        if self.last_epoch is not None and self.last_epoch < self.first_epoch:
            raise ValueError(
                f"found last_epoch {self.last_epoch} before first_epoch {self.first_epoch}; allowed: from it upwards"
            )
        return self

    def applies_to(self, source: str, epoch: int) -> bool:
        """Whether the entry says something about a source in an epoch."""
        last = self.last_epoch if self.last_epoch is not None else epoch
        return (not self.sources or source in self.sources) and self.first_epoch <= epoch <= last


def weight_in(schedule: Sequence[ScheduleConfig], source: str, epoch: int) -> float:
    """Return how many texts are drawn for each record of a source in an epoch, on average."""
    weights = (entry.weight for entry in schedule if entry.weight is not None and entry.applies_to(source, epoch))
    return next(weights, 1.0)


def tasks_in(schedule: Sequence[ScheduleConfig], source: str, epoch: int) -> tuple[Task, ...]:
    """Return the only tasks that are drawn for a source in an epoch; empty for all."""
    return next((entry.tasks for entry in schedule if entry.tasks and entry.applies_to(source, epoch)), ())
