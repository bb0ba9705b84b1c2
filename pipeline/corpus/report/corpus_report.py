"""Writes the report tables of a corpus and, last, its data set card; the card can be written again at any time.

What is written follows from the commits of the units, the report tables and the result of a training. So a card that
a kill left half written is written again by the same command.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig
from pipeline.config.load import read_stored
from pipeline.config.renamed_keys import with_new_names
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import read_json, read_table
from pipeline.corpus.corpus_identity import corpus_identity, recipe_and_plan
from pipeline.corpus.extensions import Extension, counts_before, read_extensions
from pipeline.corpus.report.card_figures import draw_figures, draw_training
from pipeline.corpus.report.census import TAG_COUNTS, Census, add_extension, take_census
from pipeline.corpus.report.corpus_card import CardContent, card
from pipeline.corpus.report.training_result import TrainingResult, training_of
from pipeline.errors import NothingDone
from pipeline.ledger.layout import RUN
from pipeline.ledger.run_record import read_run
from pipeline.storage import Store
from pipeline.storage.duckdb_session import open_duckdb
from pipeline.storage.parquet import encode_parquet
from schemas.corpus_report import CORPUS_COUNTS, CORPUS_HISTOGRAMS, CORPUS_TAGS, CORPUS_TEXTS
from schemas.corpus_row import CORPUS_VERSION
from schemas.footer import FooterKey
from schemas.record import Split

DROPPED = "dropped_"
"""Begins the reasons of records that were left out (`schemas.corpus_report`)."""

COUNTS_TABLE, TAGS_TABLE, TEXTS_TABLE, HISTOGRAMS_TABLE = (
    f"{corpus_layout.REPORT}/{name}.parquet" for name in ("counts", "tags", "texts", "histograms")
)


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
    """Write report/ and, last, the card of a corpus to which epochs were added. A result of a training stays."""
    census = take_census(store, units)
    for added in read_extensions(store):
        if added.epochs == extension.epochs:  # the last one: what was counted before it is in its record
            census.counts = counts_before(extension)
        add_extension(census, store, units, added.epochs)
    _add_shuffles(store, config, extension.first, census)
    training = None
    if store.exists(corpus_layout.TRAINING):
        data = store.get(corpus_layout.TRAINING)
        training = training_of(data, f"{store.url}/{corpus_layout.TRAINING}", recipe_and_plan(store))
    _write(store, config, census, read_table(store, TAGS_TABLE, CORPUS_TAGS), training)


def _write(
    store: Store, config: CorpusConfig, census: Census, tags: pa.Table, training: TrainingResult | None = None
) -> None:
    tables = {
        TEXTS_TABLE: pa.Table.from_pylist(census.rows(), schema=CORPUS_TEXTS),
        COUNTS_TABLE: pa.Table.from_pylist(census.count_rows(), schema=CORPUS_COUNTS),
        HISTOGRAMS_TABLE: pa.Table.from_pylist(census.histogram_rows(), schema=CORPUS_HISTOGRAMS),
        TAGS_TABLE: tags,
    }
    for path, table in tables.items():
        store.put(path, encode_parquet(table, {str(FooterKey.SCHEMA_VERSION): CORPUS_VERSION}))
    _write_card(store, config, census, tags, training)


def rewrite_card(store: Store, training: bytes | None = None, origin: str = "") -> None:
    """Write the card of a finished corpus again.

    Args:
        store: the corpus.
        training: the result of a training on it, which the card then keeps; by default the one that it has.
        origin: the name of the file with the result, for messages.

    Raises:
        ConfigError: this is not a finished corpus, or the file is not the result of a training.
        OutputMismatch: it is that of a training on another corpus.
        StoreError: a file of the corpus is damaged.
    """
    identity = corpus_identity(store)
    if training is None and store.exists(corpus_layout.TRAINING):
        training, origin = store.get(corpus_layout.TRAINING), f"{store.url}/{corpus_layout.TRAINING}"
    result = None
    if training is not None:
        result = training_of(training, origin, identity)
        store.put(corpus_layout.TRAINING, training)
    described = with_new_names(read_run(store).about["corpus"])
    config = read_stored(CorpusConfig, described, f"{store.url}/{RUN}", "corpus.")
    units = sorted(corpus_layout.unit_of_commit(entry.path) for entry in store.list(corpus_layout.PARTS))
    census = take_census(store, units)
    for extension in read_extensions(store):
        add_extension(census, store, units, extension.epochs)
        config = config.model_copy(update={"epochs": extension.epochs})
    # Its counts include those of the tables, whose files were in staging.
    counts = read_table(store, COUNTS_TABLE, CORPUS_COUNTS).to_pylist()
    census.counts = Counter({(row["source"], row["reason"]): row["number"] for row in counts})
    _write_card(store, config, census, read_table(store, TAGS_TABLE, CORPUS_TAGS), result)


def _write_card(
    store: Store, config: CorpusConfig, census: Census, tags: pa.Table, training: TrainingResult | None
) -> None:
    """Write the figures and, last, the card, which refers to them."""
    figures = draw_figures(census)
    loss = draw_training(training) if training else None
    for figure in (*figures, *([loss] if loss else [])):
        store.put(figure.path, figure.png)
    content = CardContent(
        config=config, census=census, tags=tags, figures=figures, training=training, training_figure=loss
    )
    store.put(corpus_layout.CARD, card(content).encode())


def read_texts(store: Store) -> list[dict[str, Any]]:
    """Return the rows of report/texts.parquet; columns that earlier versions wrote are ignored."""
    # The first edition also wrote what its acceptance test needed.
    return read_table(store, TEXTS_TABLE, CORPUS_TEXTS, removed=("kind", "has_meta")).to_pylist()


def read_dropped(store: Store) -> Counter[str]:
    """Return the number of dropped records by reason, from report/counts.parquet; `images` is that of all images."""
    rows = read_table(store, COUNTS_TABLE, CORPUS_COUNTS).to_pylist()
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
