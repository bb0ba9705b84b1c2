"""Evaluates the filters of a corpus on one record: the reason why it is dropped, and which fields it has.

A verdict is a pure function of the record and the config. Percentiles need all records of a source, and are evaluated
by `select_by_percentile`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.corpus_config import CorpusConfig
from pipeline.config.corpus_filters import (
    FilterConfig,
    FilterField,
    MissingValue,
    PercentileRange,
    Range,
    TagFilter,
)
from pipeline.corpus.records.tags import normal_tag
from pipeline.errors import ConfigError

PREFIX = "filter_"
"""Of the reasons of records that a filter dropped."""

TAG_FIELDS = ("general", "special", "character", "copyright", "artist", "meta")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the filters say about a record."""

    dropped: str | None
    """`filter_<field>`, or `filter_<field>_missing`; null if it is kept."""
    known: int
    """The fields of all filters that the record has, as a set of bits: 1 << the place in `FilterField`."""


class RecordSelector:
    """The filters of one source, prepared once a work unit."""

    def __init__(self, filters: Sequence[FilterConfig], source: str) -> None:
        """Take all filters of the corpus."""
        self._filters = [entry for entry in filters if entry.applies_to(source)]
        self._fields = [field for field in FilterField if any(field in entry.fields for entry in self._filters)]
        self.asks_tags = FilterField.TAGS in self._fields
        """Whether a filter looks at tags."""

    def __call__(self, record: Mapping[str, Any], tags: Collection[str], counts: Counter[str]) -> Selection:
        """Evaluate the filters.

        Args:
            record: of `schemas.record.RECORD`, with `rating_asked`.
            tags: all tags that the sources give to the image, in their normal form; read only if `asks_tags`.
            counts: counts the records that are kept although a field is unknown.
        """
        values = {field: _value(field, record, tags) for field in self._fields}
        known = sum(1 << _PLACES[field] for field, value in values.items() if value is not None)
        kept_without: list[FilterField] = []
        for entry in self._filters:
            for field in entry.fields:
                if values[field] is None:
                    if entry.missing is MissingValue.DROP:
                        return Selection(dropped=f"{PREFIX}{field}_missing", known=known)
                    kept_without.append(field)
                elif not _meets(getattr(entry, field), values[field]):
                    return Selection(dropped=f"{PREFIX}{field}", known=known)
        counts.update(f"{PREFIX}{field}_missing_kept" for field in dict.fromkeys(kept_without))
        return Selection(dropped=None, known=known)


_PLACES = {field: place for place, field in enumerate(FilterField)}


def _sides(record: Mapping[str, Any]) -> tuple[int, int] | None:
    return (record["width"], record["height"]) if record["width"] and record["height"] else None


def _of_sides(measure: Callable[[int, int], float]) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda record: measure(*sides) if (sides := _sides(record)) else None


def _length(name: str, *, words: bool) -> Callable[[Mapping[str, Any]], int | None]:
    return lambda record: len(record[name].split() if words else record[name]) if record[name] else None


_VALUES: Mapping[FilterField, Callable[[Mapping[str, Any]], Any]] = {
    FilterField.RATING: lambda record: record["rating_asked"],
    FilterField.SCORE_PERCENTILE: lambda record: record["score"],
    FilterField.FAVORITES_PERCENTILE: lambda record: record["favorites"],
    FilterField.SHORTER_SIDE: _of_sides(min),
    FilterField.PIXELS: _of_sides(lambda width, height: width * height),
    FilterField.ASPECT: _of_sides(lambda width, height: width / height),
    FilterField.SHORT_WORDS: _length("short", words=True),
    FilterField.SHORT_CHARS: _length("short", words=False),
    FilterField.LONG_WORDS: _length("long", words=True),
    FilterField.LONG_CHARS: _length("long", words=False),
}
"""What a condition compares; the other conditions compare the field of their name."""


def _value(field: FilterField, record: Mapping[str, Any], tags: Collection[str]) -> Any:  # noqa: ANN401 - a field
    """Return the value that a condition compares, or None if it is unknown."""
    if field is FilterField.TAGS:
        return tags or None
    read = _VALUES.get(field)
    return read(record) if read else record.get(field)


def _meets(condition: object, value: Any) -> bool:  # noqa: ANN401 - of the field's type
    match condition:
        case PercentileRange():  # evaluated when all records are known
            return True
        case Range(min=low, max=high):
            return (low is None or value >= low) and (high is None or value <= high)
        case TagFilter():
            wanted, some, unwanted = (set(map(normal_tag, names)) for names in _lists(condition))
            return wanted.issubset(value) and unwanted.isdisjoint(value) and (not some or not some.isdisjoint(value))
        case tuple():
            return value in condition
        case _:
            raise AssertionError(condition)


def _lists(condition: TagFilter) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    return condition.all, condition.any, condition.none


# fmt: off
_FACTS: Mapping[FilterField, tuple[str, ...]] = {
    FilterField.SCORE_PERCENTILE: ("score",), FilterField.FAVORITES_PERCENTILE: ("favorites",),
    FilterField.SHORTER_SIDE: ("width",), FilterField.PIXELS: ("width",), FilterField.ASPECT: ("width",),
    FilterField.TAGS: ("tags", "general", "character", "copyright", "artist", "meta"),
    FilterField.SHORT_WORDS: ("short",), FilterField.SHORT_CHARS: ("short",),
    FilterField.LONG_WORDS: ("long",), FilterField.LONG_CHARS: ("long",),
}
# fmt: on
"""Fields of `schemas.image_facts` from one of which a condition's value follows; others: the field of its name."""


def refuse_absent_fields(config: CorpusConfig, known: Mapping[str, Collection[str]]) -> None:
    """Refuse a filter on a field that no table of its sources has; done before records are built.

    What captions know is only seen when their records are built (`refuse_unknown_fields`).

    Args:
        config: of the corpus.
        known: by table, the fields of `schemas.image_facts` that have a value in any row.

    Raises:
        ConfigError: a filter can drop all its records only.
    """
    captions = {entry.name for entry in config.captions}
    for number, entry in enumerate(config.filters):
        sources = [source for source in config.sources if entry.applies_to(source)]
        if captions.intersection(sources):
            continue
        joined = [
            table.name
            for table in config.joins
            if table.join and (not table.join.to or set(table.join.to).intersection(sources))
        ]
        facts = {fact for name in (*sources, *joined) for fact in known[name]}
        facts |= {"language"} if config.languages else set()
        for field in entry.fields:
            if not facts.intersection(_FACTS.get(field, (field,))):
                raise _absent(number, field, sources, sorted(facts))


def refuse_unknown_fields(filters: Sequence[FilterConfig], sources: Sequence[str], known: Mapping[str, int]) -> None:
    """Refuse a filter on a field that no record of its sources has.

    Args:
        filters: of the corpus.
        sources: names of all sources, in the order of the config.
        known: by source with records, the bits of `Selection.known` of all its records.
    """
    for number, entry in enumerate(filters):
        applies = [source for source in sources if entry.applies_to(source) and source in known]
        for field in entry.fields if applies else ():
            if not any(known[source] >> _PLACES[field] & 1 for source in applies):
                raise _absent(number, field, applies)


def _absent(number: int, field: FilterField, sources: Sequence[str], facts: Sequence[str] = ()) -> ConfigError:
    known = f"; known there: {', '.join(facts)}" if facts else ""
    return ConfigError(
        f"filters.{number}.{field}: no record of {', '.join(sources)} has a value for it{known}; name its column in "
        "`columns`, or remove the condition. With another config, use a new output"
    )
