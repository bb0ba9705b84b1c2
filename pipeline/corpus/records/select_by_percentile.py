"""Drops records by the percentile of their score or favourites among all records of their source.

The percentile is that of all records, before any other filter and before duplicates are dropped, so that no condition
depends on another one. Records with the same number share the middle of their percentiles, as for quality terms.
"""

from collections.abc import Iterator, Sequence

from pipeline.config.corpus_filters import FilterConfig, FilterField, PercentileGroup, PercentileRange
from pipeline.corpus.records.select_records import PREFIX

_COLUMNS = {FilterField.SCORE_PERCENTILE: "score", FilterField.FAVORITES_PERCENTILE: "favorites"}
_GROUPS = {
    PercentileGroup.SOURCE: "rank",
    PercentileGroup.RATING: "rank, rating",
    PercentileGroup.YEAR: "rank, year",
}


def percentile_queries(filters: Sequence[FilterConfig], sources: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a query for each condition on a percentile, and the reason of the records that it returns.

    A query returns unit and row of the records that do not meet the condition. It reads the table `records`, with the
    columns of `dedupe_and_split.IDENTITIES` and `rank`, the place of the record's source in `sources`.
    """
    for entry in filters:
        ranks = [str(rank) for rank, source in enumerate(sources) if entry.applies_to(source)]
        for field, column in _COLUMNS.items():
            condition: PercentileRange | None = getattr(entry, field)
            if condition is not None:
                yield _query(column, condition, ranks), f"{PREFIX}{field}"


def _query(column: str, condition: PercentileRange, ranks: Sequence[str]) -> str:
    group = _GROUPS[condition.within]
    low = 0 if condition.min is None else condition.min
    high = 100 if condition.max is None else condition.max
    return (
        "SELECT unit, row FROM (SELECT unit, row, "
        f"50.0 * (2 * (rank() OVER (PARTITION BY {group} ORDER BY {column}) - 1) "
        f"+ count(*) OVER (PARTITION BY {group}, {column})) / count(*) OVER (PARTITION BY {group}) AS percentile "
        f"FROM records WHERE {column} IS NOT NULL AND rank IN ({', '.join(ranks)})) "
        f"WHERE percentile < {low!r} OR percentile > {high!r}"
    )
