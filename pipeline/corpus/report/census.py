"""Counts texts, records and tags: of a work unit when it is published, and summed over all units for the report."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import read_json
from pipeline.storage import Store

TAG_FIELDS = ("general", "special", "character", "copyright", "artist", "meta", "rating", "quality")
TAG_COUNTS: pa.Schema = pa.schema([("category", pa.string()), ("tag", pa.string()), ("records", pa.int64())])

GROUP = ("epoch", "source", "split", "task", "length", "gen_meta", "loss")
"""Columns by which texts are counted."""
TOKEN_SUMS = ("n_tokens", "n_trained", "too_long")
SAMPLES = 20
"""Texts kept as samples: those with the smallest seeds. The choice is arbitrary, and the same in every run."""


def count_texts(rows: pa.Table, context: int | None) -> list[dict[str, Any]]:
    """Return the rows of `schemas.corpus_report.CORPUS_TEXTS` for the texts of one work unit and epoch."""
    too_long = pc.call_function("greater", [rows["n_tokens"], pa.scalar(context, pa.int32())]).cast(pa.int64())
    grouped = (
        rows.append_column("too_long", too_long)
        .group_by(list(GROUP))
        .aggregate([([], "count_all"), *((name, "sum") for name in TOKEN_SUMS)])
        .rename_columns([*GROUP, "rows", *TOKEN_SUMS])
    )
    return sorted(grouped.to_pylist(), key=lambda row: [str(row[name]) for name in GROUP])


def count_tags(records: pa.Table) -> pa.Table:
    """Return TAG_COUNTS: how many records of one work unit have each tag."""
    counts = [
        {"category": name, "tag": row["values"], "records": row["counts"]}
        for name in TAG_FIELDS
        for row in sorted(
            pc.call_function("list_flatten", [records[name]]).value_counts().to_pylist(), key=itemgetter("values")
        )
    ]
    return pa.Table.from_pylist(counts, schema=TAG_COUNTS)


def pick_samples(rows: pa.Table) -> list[dict[str, Any]]:
    """Return the texts of one work unit from which the samples of the card are chosen."""
    ordered = rows.sort_by([("seed", "ascending")]).slice(0, SAMPLES)
    return ordered.select(["id", "seed", "task", "user", "output"]).to_pylist()


@dataclass(slots=True)
class Census:
    """Sums over work units."""

    records: Counter[str] = field(default_factory=Counter[str])
    """By split."""
    without_size: int = 0
    texts: dict[tuple[Any, ...], dict[str, int | None]] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By source and reason."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    sampled: set[str] = field(default_factory=set[str])
    """Work units whose samples were considered: those of the first epochs in which they have texts."""

    def add(self, name: str, unit: Mapping[str, Any]) -> None:
        """Add the counts of a work unit, as its commit holds them."""
        self.records.update(unit["records"])
        self.without_size += unit["without_size"]
        self.add_texts(name, unit)

    def add_texts(self, name: str, unit: Mapping[str, Any]) -> None:
        """Add the texts and counts of a work unit, as its commit or that of its added epochs holds them."""
        if name not in self.sampled and unit["samples"]:
            self.sampled.add(name)
            self.samples = heapq.nsmallest(
                SAMPLES, [*self.samples, *unit["samples"]], key=lambda row: (row["seed"], row["id"])
            )
        for reason, number in unit["counts"].items():
            self.counts[unit["source"], reason] += number
        for row in unit["texts"]:
            names = ("rows", *TOKEN_SUMS)
            sums = self.texts.setdefault(tuple(row[name] for name in GROUP), dict.fromkeys(names, 0))
            for name in names:
                known, more = sums[name], row[name]
                sums[name] = None if known is None or more is None else known + more

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of CORPUS_TEXTS, in a fixed order."""
        ordered = sorted(self.texts.items(), key=lambda item: tuple(map(str, item[0])))
        return [{**dict(zip(GROUP, key, strict=True)), **sums} for key, sums in ordered]

    def count_rows(self) -> list[dict[str, Any]]:
        """Return the rows of CORPUS_COUNTS, in a fixed order."""
        return [
            {"source": source, "reason": reason, "number": number}
            for (source, reason), number in sorted(self.counts.items())
            if number
        ]


def take_census(store: Store, units: Sequence[str]) -> Census:
    """Sum up the counts of all work units."""
    census = Census()
    for unit in units:
        census.add(unit, read_json(store, corpus_layout.commit_path(unit)))
    return census
