"""Writes the report tables of a corpus and, last, its data set card."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import read_json, read_table
from pipeline.corpus.duckdb_session import open_duckdb
from pipeline.corpus.extensions import Extension, counts_before, read_extensions
from pipeline.corpus.report.census import TAG_COUNTS, Census, take_census
from pipeline.corpus.report.corpus_card import card
from pipeline.errors import NothingDone
from pipeline.storage import Store
from pipeline.storage.parquet import encode_parquet
from schemas.corpus_report import CORPUS_COUNTS, CORPUS_TAGS, CORPUS_TEXTS
from schemas.corpus_row import CORPUS_VERSION
from schemas.footer import FooterKey
from schemas.record import Split

DROPPED = "dropped_"
"""Begins the reasons of records that were left out (`schemas.corpus_report`)."""


def write_report(store: Store, config: CorpusConfig, units: Sequence[str]) -> None:
    """Write report/ and, last, the card.

    Raises:
        NothingDone: the schedule leaves no text.
    """
    census = take_census(store, units)
    if config.schedule and census.records and not census.texts:
        raise NothingDone(
            f"schedule: none of {census.records.total():,} records has a text; raise a weight or name more tasks, and "
            "use a new output"
        )
    for table in config.tables:
        _add_table(store, table.name, census)
    _add_shuffles(store, config, 0, census)
    _write(store, config, census, _tags(store, units, config.memory_gib))


def write_extended_report(store: Store, config: CorpusConfig, units: Sequence[str], extension: Extension) -> None:
    """Write report/ and, last, the card of a corpus to which epochs were added."""
    census = take_census(store, units)
    for added in read_extensions(store):
        if added.epochs == extension.epochs:  # the last one: what was counted before it is in its record
            census.counts = counts_before(extension)
        for unit in units:
            census.add_texts(unit, read_json(store, corpus_layout.added_path(added.epochs, unit)))
    _add_shuffles(store, config, extension.first, census)
    _write(store, config, census, read_table(store, _TAGS, CORPUS_TAGS))


_TAGS = f"{corpus_layout.REPORT}/tags.parquet"


def _write(store: Store, config: CorpusConfig, census: Census, tags: pa.Table) -> None:
    tables = {
        "texts": pa.Table.from_pylist(census.rows(), schema=CORPUS_TEXTS),
        "counts": pa.Table.from_pylist(census.count_rows(), schema=CORPUS_COUNTS),
        "tags": tags,
    }
    for name, table in tables.items():
        data = encode_parquet(table, {str(FooterKey.SCHEMA_VERSION): CORPUS_VERSION})
        store.put(f"{corpus_layout.REPORT}/{name}.parquet", data)
    store.put(corpus_layout.CARD, card(config, census, tags).encode())


def read_texts(store: Store) -> list[dict[str, Any]]:
    """Return the rows of report/texts.parquet; columns that earlier versions wrote are ignored."""
    # The first edition also wrote what its acceptance test needed.
    path = f"{corpus_layout.REPORT}/texts.parquet"
    return read_table(store, path, CORPUS_TEXTS, removed=("kind", "has_meta")).to_pylist()


def read_dropped(store: Store) -> Counter[str]:
    """Return the number of dropped records by reason, from report/counts.parquet; `images` is that of all images."""
    rows = read_table(store, f"{corpus_layout.REPORT}/counts.parquet", CORPUS_COUNTS).to_pylist()
    counts = Counter[str]()
    for row in rows:
        if row["reason"] == "images" or row["reason"].startswith(DROPPED):
            counts[row["reason"].removeprefix(DROPPED)] += row["number"]
    return counts


def _add_shuffles(store: Store, config: CorpusConfig, first: int, census: Census) -> None:
    """Add what the shuffles of the epochs from `first` have counted."""
    if config.shuffle is None:
        return
    for epoch in range(first, config.epochs):
        for split in Split:
            manifest = read_json(store, corpus_layout.manifest_path(split, epoch))
            for source, number in manifest["in_no_pack"].items():
                census.counts[source, "texts_in_no_pack"] += number


def _add_table(store: Store, table: str, census: Census) -> None:
    """Count the rows and bad values of a table, and how many of its rows matched an image."""
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


def _tags(store: Store, units: Sequence[str], memory_gib: float) -> pa.Table:
    def counts() -> Iterator[pa.RecordBatch]:
        for unit in units:
            yield from read_table(store, corpus_layout.tags_path(unit), TAG_COUNTS).to_batches()

    with open_duckdb(memory_gib) as duck:
        duck.load("counts", counts(), TAG_COUNTS)
        return duck.table(
            "SELECT category, tag, sum(records)::BIGINT AS records FROM counts GROUP BY ALL "
            "ORDER BY category, records DESC, tag",
            CORPUS_TAGS,
        )
