"""The census of a corpus: what is in it and what was left out, added up from the counts of its parts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import parquet_bytes, read_json, read_table
from pipeline.corpus.duckdb_session import Limits, opened
from pipeline.corpus.expected import accept, accept_share, expected_gen_meta, expected_tasks, style_name
from pipeline.corpus.publish_corpus import GROUP, TAG_COUNTS
from pipeline.corpus.report.corpus_card import card
from pipeline.storage import Store
from schemas.corpus_report import CORPUS_ACCEPTANCE, CORPUS_COUNTS, CORPUS_TAGS, CORPUS_TEXTS
from schemas.corpus_row import CORPUS_VERSION
from schemas.footer import FooterKey

SAMPLES = 20
"""Texts shown in the card: those with the smallest draws."""

SUMS = ("rows", "n_tokens", "n_trained", "too_long")


@dataclass(slots=True)
class Census:
    """Sums over the parts."""

    records: Counter[str] = field(default_factory=Counter[str])
    """By split."""
    without_size: int = 0
    texts: dict[tuple[Any, ...], dict[str, int | None]] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    samples: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def add(self, part: Mapping[str, Any]) -> None:
        """Add what `parts/<part>.json` says."""
        self.records.update(part["records"])
        self.without_size += part["without_size"]
        for reason, number in part["counts"].items():
            self.counts[part["source"], reason] += number
        for row in part["texts"]:
            sums = self.texts.setdefault(tuple(row[name] for name in GROUP), dict.fromkeys(SUMS, 0))
            for name in SUMS:
                known, more = sums[name], row[name]
                sums[name] = None if known is None or more is None else known + more
        drawn = [(row["seed"], row) for row in part["samples"]]
        self.samples = heapq.nsmallest(SAMPLES, [*self.samples, *drawn], key=lambda pair: (pair[0], pair[1]["id"]))

    def rows(self) -> list[dict[str, Any]]:
        """Rows of CORPUS_TEXTS, in a fixed order."""
        ordered = sorted(self.texts.items(), key=lambda item: tuple(map(str, item[0])))
        return [{**dict(zip(GROUP, key, strict=True)), **sums} for key, sums in ordered]


def take_census(store: Store, parts: Sequence[str]) -> Census:
    """Add up the parts."""
    census = Census()
    for part in parts:
        census.add(read_json(store, corpus_layout.part_path(part)))
    return census


def write_report(store: Store, config: CorpusConfig, parts: Sequence[str], limits: Limits) -> None:
    """Write report/ and, last, the card."""
    census = take_census(store, parts)
    for table in config.tables:
        _add_table(store, table.name, census)
    tags = _tags(store, parts, limits)
    rows = [
        {"source": source, "reason": reason, "number": number}
        for (source, reason), number in sorted(census.counts.items())
        if number
    ]
    tables = {
        "texts": pa.Table.from_pylist(census.rows(), schema=CORPUS_TEXTS),
        "acceptance": pa.Table.from_pylist(acceptance(census, config), schema=CORPUS_ACCEPTANCE),
        "counts": pa.Table.from_pylist(rows, schema=CORPUS_COUNTS),
        "tags": tags,
    }
    for name, table in tables.items():
        data = parquet_bytes(table, {str(FooterKey.SCHEMA_VERSION): CORPUS_VERSION})
        store.put(f"{corpus_layout.REPORT}/{name}.parquet", data)
    store.put(corpus_layout.CARD, card(config, census, tables).encode())


def acceptance(census: Census, config: CorpusConfig) -> list[dict[str, Any]]:
    """Test what was drawn against what the config sets: rows of CORPUS_ACCEPTANCE."""
    render = config.render
    drawn: dict[tuple[str, str, str], Counter[str]] = {}
    for row in census.rows():
        style = style_name(render, row["source"])
        for test in ("task", "loss", *(["gen_meta"] if row["has_meta"] else [])):
            counts = drawn.setdefault((style, row["kind"], test), Counter())
            counts[str(row[test])] += row["rows"]
    found: list[dict[str, Any]] = []
    for (style, kind, test), counts in sorted(drawn.items()):
        if test == "task":
            tested = accept(counts, {str(task): share for task, share in expected_tasks(render, style, kind).items()})
        elif test == "loss":
            tested = accept_share(counts["all"], counts.total(), render.loss_all)
        else:
            tested = accept_share(counts["True"], counts.total(), expected_gen_meta(render, style))
        figures = {"statistic": tested.statistic, "degrees": tested.degrees, "p": tested.p}
        found.append({"style": style, "kind": kind, "test": test, "rows": counts.total(), **figures})
    return found


def read_texts(store: Store) -> list[dict[str, Any]]:
    """Return the rows of report/texts.parquet."""
    return read_table(store, f"{corpus_layout.REPORT}/texts.parquet", CORPUS_TEXTS).to_pylist()


def _add_table(store: Store, table: str, census: Census) -> None:
    """What was wrong in a table, and what of it was of use."""
    for entry in store.list(f"{corpus_layout.STAGING}/tables/{table}"):
        if entry.path.endswith(".json"):
            sliced = read_json(store, entry.path)
            census.counts[table, "table_rows"] += sliced["rows"]
            census.counts.update({(table, reason): number for reason, number in sliced["faults"].items()})
    if store.exists(corpus_layout.join_path(table)):
        joined = read_json(store, corpus_layout.join_path(table))
        census.counts[table, "table_rows_unused"] = census.counts[table, "table_rows"] - joined["rows_matched"]
        census.counts[table, "images_matched"] = joined["images_matched"]
        census.counts[table, "images_matched_more_than_once"] = joined["images_twice"]


def _tags(store: Store, parts: Sequence[str], limits: Limits) -> pa.Table:
    def counted() -> Iterator[pa.RecordBatch]:
        for part in parts:
            yield from read_table(store, corpus_layout.tags_path(part), TAG_COUNTS).to_batches()

    with opened(limits) as duck:
        duck.take("counted", counted(), TAG_COUNTS)
        answer = duck.batches(
            "SELECT category, tag, sum(records)::BIGINT AS records FROM counted GROUP BY ALL "
            "ORDER BY category, records DESC, tag"
        )
        found = [pa.Table.from_batches([batch]).cast(CORPUS_TAGS) for batch in answer]
        return pa.concat_tables([CORPUS_TAGS.empty_table(), *found])
