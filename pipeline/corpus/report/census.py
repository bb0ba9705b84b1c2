"""Counts texts, records and tags: of a work unit when it is published, and summed over all units for the report."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
BIN_WIDTHS = {"tokens": 16, "characters": 64, "tags": 2, "short_words": 2, "long_words": 8}
"""Width of the bins of each histogram. A word is what stands between blanks; a tag is general or special."""

Histograms = Counter[tuple[str, int]]
"""Numbers of texts or records by histogram and first value of the bin."""

READERS = 16
"""Threads that read the commits of the units: each read waits for the store."""


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


def measure_texts(rows: pa.Table) -> Histograms:
    """Return the histograms of the lengths of texts; in tokens only if they are counted."""
    characters = pc.call_function("add", [pc.call_function("utf8_length", [rows[half]]) for half in ("user", "output")])
    return _binned("characters", characters) + _binned("tokens", rows["n_tokens"])


def measure_records(records: pa.Table) -> Histograms:
    """Return the histograms of the tags and the captions of records."""
    tags = [pc.call_function("list_value_length", [records[name]]) for name in ("general", "special")]
    histograms = _binned("tags", pc.call_function("add", tags))
    for name in ("short", "long"):
        words = pc.call_function("utf8_split_whitespace", [records[name]])
        histograms += _binned(f"{name}_words", pc.call_function("list_value_length", [words]))
    return histograms


def _binned(name: str, values: pa.ChunkedArray) -> Histograms:
    width = pa.scalar(BIN_WIDTHS[name], pa.int64())
    places = pc.call_function("divide", [values.cast(pa.int64()), width])
    counts = pc.call_function("value_counts", [places.drop_null()])
    return Counter({(name, row["values"] * BIN_WIDTHS[name]): row["counts"] for row in counts.to_pylist()})


def measure_bytes(kind: str, rows: pa.Table, splits: Sequence[str]) -> Counter[str]:
    """Return the Arrow bytes of the rows of each split, by the folder of its files, such as `text/train`."""
    sides = pa.array(splits, pa.string())
    return Counter({
        f"{kind}/{split}": rows.filter(pc.call_function("equal", [sides, pa.scalar(split)])).nbytes
        for split in sorted(set(splits))
    })  # fmt: skip


def pick_examples(rows: pa.Table) -> list[dict[str, Any]]:
    """Return a text of each task in one work unit: the one with the smallest seed, so an arbitrary one, always."""
    ordered = rows.sort_by([("seed", "ascending")])
    tasks = ordered["task"].to_pylist()
    first = {task: place for place, task in reversed(list(enumerate(tasks)))}
    examples = ordered.take(pa.array(sorted(first.values()), pa.int64()))
    return examples.select(["id", "seed", "task", "user", "output"]).to_pylist()


@dataclass(slots=True)
class Census:
    """Sums over work units."""

    records: Counter[str] = field(default_factory=Counter[str])
    """By split."""
    without_size: int = 0
    texts: dict[tuple[Any, ...], dict[str, int | None]] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By source and reason."""
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)
    """A text by its task."""
    measured: bool = True
    """Whether all units were measured: the first releases did not measure histograms and bytes."""
    histograms: Histograms = field(default_factory=Counter[tuple[str, int]])
    num_bytes: Counter[str] = field(default_factory=Counter[str])
    """As `measure_bytes`."""

    def add(self, unit: Mapping[str, Any]) -> None:
        """Add the counts of a work unit, as its commit holds them."""
        self.records.update(unit["records"])
        self.without_size += unit["without_size"]
        self.add_texts(unit)

    def add_texts(self, unit: Mapping[str, Any]) -> None:
        """Add the texts and counts of a work unit, as its commit or that of its added epochs holds them."""
        for reason, number in unit["counts"].items():
            self.counts[unit["source"], reason] += number
        for row in unit["texts"]:
            names = ("rows", *TOKEN_SUMS)
            sums = self.texts.setdefault(tuple(row[name] for name in GROUP), dict.fromkeys(names, 0))
            for name in names:
                total, more = sums[name], row[name]
                sums[name] = None if total is None or more is None else total + more
        for example in unit["samples"]:
            known = self.examples.setdefault(example["task"], example)
            if (example["seed"], example["id"]) < (known["seed"], known["id"]):
                self.examples[example["task"]] = example
        self.measured &= "histograms" in unit
        self.histograms.update({(name, start): number for name, start, number in unit.get("histograms", ())})
        self.num_bytes.update(unit.get("num_bytes", {}))

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

    def histogram_rows(self) -> list[dict[str, Any]]:
        """Return the rows of CORPUS_HISTOGRAMS, in a fixed order; none if they are those of some units only."""
        return [
            {"name": name, "start": start, "width": BIN_WIDTHS[name], "number": number}
            for (name, start), number in sorted(self.histograms.items() if self.measured else ())
        ]


def take_census(store: Store, units: Sequence[str]) -> Census:
    """Sum up the counts of all work units."""
    census = Census()
    _add_all(store, map(corpus_layout.commit_path, units), census.add)
    return census


def add_extension(census: Census, store: Store, units: Sequence[str], epochs: int) -> None:
    """Add the counts of the texts of the extension to so many epochs."""
    _add_all(store, [corpus_layout.added_path(epochs, unit) for unit in units], census.add_texts)


def _add_all(store: Store, paths: Iterable[str], add: Callable[[Mapping[str, Any]], None]) -> None:
    with ThreadPoolExecutor(READERS) as pool:
        for counts in pool.map(lambda path: read_json(store, path), paths):
            add(counts)
