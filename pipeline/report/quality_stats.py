"""Measures the quality of the captions of an output, in one pass over its committed files.

Memory does not grow with the output: one committed file (below 100 MB) and a batch of its rows, per
group a histogram, `OPENINGS` openings and `NGRAM_CAPTIONS` captions, and the samples of
`pipeline.report.duplicates`. The figures do not depend on the order of the files, except those of rare
openings if an output has more than twice `OPENINGS` of them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.report.committed import committed_files
from pipeline.report.duplicates import Duplicates
from pipeline.report.key_sample import Smallest, hash64
from pipeline.storage import Store
from pipeline.storage.parquet import encode_parquet
from schemas.caption_row import SCHEMA_VERSION
from schemas.footer import FooterKey
from schemas.quality_report import COUNTED, QUALITY_GROUPS, QUALITY_OPENINGS, QUALITY_REASONS, QUALITY_WORDS
from schemas.status import Flag, Status

FOLDER = "report/quality"
NGRAM_CAPTIONS = 500
"""Per group: distinct n-grams fall with the size of a text, so all groups are measured at one size."""
OPENINGS = 2000
"""Per group, kept while counting; `SHOWN_OPENINGS` are written."""
SHOWN_OPENINGS = 100

COLUMNS = [
    "shard", "row", "slot", "mode", "length_kind", "length_words", "length_class", "status", "reason", "flags",
    "earlier_reasons", "caption", "words", "attempts", "given", "mentioned",
]  # fmt: skip


@dataclass(slots=True)
class Group:
    """Counts of one mode and length."""

    mode: str
    length: str
    rows: Counter[str] = field(default_factory=Counter[str])
    """By the names of `COUNTED`."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    words: Counter[int] = field(default_factory=Counter[int])
    openings: Counter[str] = field(default_factory=Counter[str])
    given: int = 0
    """Tags and names that the prompts of the ok captions gave."""
    mentioned: int = 0
    """Of these, those that the captions mention."""
    sample: Smallest[int, str] = field(default_factory=lambda: Smallest[int, str](NGRAM_CAPTIONS))


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """The tables, each of its schema in `schemas.quality_report`."""

    groups: pa.Table
    reasons: pa.Table
    words: pa.Table
    openings: pa.Table


class Measuring:
    """Counts caption rows, those of an image in a row; `report` returns the figures."""

    def __init__(self, duplicates: Duplicates | None = None) -> None:
        """Start with no rows.

        Args:
            duplicates: where captions are compared; by default with the capacities of `pipeline.report.duplicates`.
        """
        self._groups: dict[tuple[str, str], Group] = {}
        self._compared = duplicates or Duplicates()

    def take(self, row: Mapping[str, Any]) -> None:
        """Count a row with the columns `COLUMNS`."""
        key = (row["mode"], length_of(row))
        group = self._groups.setdefault(key, Group(*key))
        _take(group, row)
        if row["status"] == Status.OK:
            _take_caption(group, row)
            image = hash64(f"{row['shard']}\x1f{row['row']}")
            self._compared.add(hash64("\x1f".join(key)), image, row["caption"])

    def report(self) -> QualityReport:
        """Return the figures of all counted rows."""
        ordered = [self._groups[key] for key in sorted(self._groups)]
        return QualityReport(
            groups=_table(ordered, _figures(self._compared), QUALITY_GROUPS),
            reasons=_table(ordered, _reasons, QUALITY_REASONS),
            words=_table(ordered, _words, QUALITY_WORDS),
            openings=_table(ordered, _openings, QUALITY_OPENINGS),
        )


def measure_quality(store: Store, duplicates: Duplicates | None = None) -> QualityReport:
    """Read all committed files of an output and return the figures; `duplicates` as for `Measuring`."""
    measuring = Measuring(duplicates)
    for committed in committed_files(store):
        for batch in committed.batches(COLUMNS):
            for row in batch.to_pylist():
                measuring.take(row)
    return measuring.report()


def write_report(store: Store, report: QualityReport) -> list[str]:
    """Write the tables, replacing those of an earlier report; return their paths."""
    tables = {name: getattr(report, name) for name in QualityReport.__slots__}
    for name, table in tables.items():
        data = encode_parquet(table, {str(FooterKey.SCHEMA_VERSION): SCHEMA_VERSION})
        store.put(f"{FOLDER}/{name}.parquet", data)
    return [f"{FOLDER}/{name}.parquet" for name in tables]


def length_of(row: Mapping[str, Any]) -> str:
    """Return the requested length as the tables name it: `none`, the class, or such as `40 words`."""
    kind = row["length_kind"]
    return f"{row['length_words']} words" if kind == "words" else row["length_class"] if kind == "class" else "none"


def _take(group: Group, row: Mapping[str, Any]) -> None:
    status: str = row["status"]
    group.rows["repaired" if status == Status.OK and row["attempts"] > 1 else status] += 1
    if row["reason"]:
        group.reasons[status, row["reason"]] += 1
    for name in row["earlier_reasons"] or ():
        group.reasons["earlier", name] += 1
    for name in row["flags"]:
        group.reasons["flag", name] += 1


def _take_caption(group: Group, row: Mapping[str, Any]) -> None:
    text: str = row["caption"]
    group.given += row["given"] or 0
    group.mentioned += row["mentioned"] or 0
    group.words[row["words"]] += 1
    group.openings[" ".join(text.lower().split(maxsplit=3)[:3])] += 1
    if len(group.openings) > 2 * OPENINGS:
        group.openings = Counter(dict(group.openings.most_common(OPENINGS)))
    group.sample.add(hash64(f"{row['shard']}\x1f{row['row']}\x1f{row['slot']}"), text)


def _figures(compared: Duplicates) -> Callable[[Group], Iterator[dict[str, Any]]]:
    exact, near = compared.exact(), compared.near()

    def figures(group: Group) -> Iterator[dict[str, Any]]:
        key = hash64(f"{group.mode}\x1f{group.length}")
        texts = [text for _, text in group.sample.items]
        yield {
            "rows": group.rows.total(),
            **{name: group.rows[name] for name in COUNTED},
            **_word_figures(group),
            **_adherence(group),
            "ngram_captions": len(texts),
            **{f"distinct_{size}": distinct(texts, size) for size in (1, 2, 3)},
            "exact_rate": compared.exact_rate,
            "exact_duplicates": exact[key].share if key in exact else None,
            "near_captions": near[key].captions if key in near else 0,
            "near_duplicates": near[key].share if key in near else None,
            "given": group.given,
            "mentioned": group.mentioned / group.given if group.given else None,
        }

    return figures


def _word_figures(group: Group) -> dict[str, float | int | None]:
    total = group.words.total()
    if not total:
        return {}
    mean = sum(words * rows for words, rows in group.words.items()) / total
    return {"words_mean": mean, **{f"words_p{part}": percentile(group.words, part) for part in (10, 50, 90)}}


def percentile(histogram: Mapping[int, int], part: int) -> int:
    """Return the least value that `part` percent of the values do not exceed."""
    wanted, counted = sum(histogram.values()) * part / 100, 0
    for value in sorted(histogram):
        counted += histogram[value]
        if counted >= wanted:
            return value
    raise ValueError("an empty histogram has no percentile")


def _adherence(group: Group) -> dict[str, float]:
    total = group.words.total()
    if group.length == "none" or not total:
        return {}
    short, long = group.reasons["flag", Flag.TOO_SHORT], group.reasons["flag", Flag.TOO_LONG]
    return {"length_kept": 1 - (short + long) / total, "too_short": short / total, "too_long": long / total}


def distinct(texts: Iterable[str], size: int) -> float | None:
    """Return the share of different runs of `size` words among all runs of the texts."""
    different: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.lower().split()
        runs = list(zip(*(words[at:] for at in range(size)), strict=False))
        different.update(runs)
        total += len(runs)
    return len(different) / total if total else None


def _reasons(group: Group) -> Iterator[dict[str, Any]]:
    for (kind, name), rows in sorted(group.reasons.items()):
        yield {"kind": kind, "name": name, "rows": rows}


def _words(group: Group) -> Iterator[dict[str, Any]]:
    return ({"words": words, "rows": rows} for words, rows in sorted(group.words.items()))


def _openings(group: Group) -> Iterator[dict[str, Any]]:
    ordered = sorted(group.openings.items(), key=lambda item: (-item[1], item[0]))
    return ({"opening": opening, "rows": rows} for opening, rows in ordered[:SHOWN_OPENINGS])


def _table(
    groups: Iterable[Group], rows_of: Callable[[Group], Iterable[dict[str, Any]]], schema: pa.Schema
) -> pa.Table:
    rows = [{"mode": group.mode, "length": group.length, **row} for group in groups for row in rows_of(group)]
    return pa.Table.from_pylist(rows, schema=schema)
