"""Publishes a work unit: its records, its training texts for each epoch, and the counts of both.

A kill at any line leaves complete files with correct rows. The counts are written last and are the commit of the unit.
"""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import CorpusConfig, Rating
from pipeline.config.corpus_config import Format
from pipeline.config.corpus_filters import weight_in
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_json, read_table
from pipeline.corpus.libraries import check_libraries
from pipeline.corpus.records.build_records import BUILT_RECORD, COUNTS
from pipeline.corpus.records.dedupe_and_split import CHOICES, POPULARITY
from pipeline.corpus.records.metadata_terms import Popularity, QualityTerms
from pipeline.corpus.report.census import (
    TAG_COUNTS,
    Histograms,
    count_tags,
    count_texts,
    measure_bytes,
    measure_records,
    measure_texts,
    pick_examples,
)
from pipeline.corpus.shuffle_texts import STAGED_TEXT, with_places
from pipeline.corpus.tables.source_images import WorkUnit
from pipeline.corpus.text.count_tokens import count_tokens
from pipeline.corpus.text.pack_texts import PACKING, pack
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.schedule import render_in
from pipeline.corpus.text.tokenizer import TextTokenizer
from pipeline.corpus.text_files import encode_texts
from pipeline.errors import StoreError
from pipeline.storage import Store, put_if_absent
from schemas.footer import FooterKey
from schemas.record import PUBLISHED_WITH_LANGUAGE, RECORD, RECORD_VERSION, Split, published_schema


@dataclass(slots=True, kw_only=True)
class _Drawn:
    """What the commit of a work unit says about its texts, or about those of its added epochs."""

    counts: Counter[str] = field(default_factory=Counter[str])
    texts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    examples: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """A text of each task, of the first epoch that has it."""
    exemplified: set[str] = field(default_factory=set[str])
    """Tasks that need no further example."""
    histograms: Histograms = field(default_factory=Counter[tuple[str, int]])
    num_bytes: Counter[str] = field(default_factory=Counter[str])

    def as_counts(self) -> dict[str, Any]:
        return {
            "counts": dict(self.counts),
            "texts": self.texts,
            "samples": self.examples,
            "histograms": [[*key, number] for key, number in sorted(self.histograms.items())],
            "num_bytes": dict(self.num_bytes),
        }


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Publishes work units; pickles, and reads the sample for percentiles once per process."""

    store: Store
    config: CorpusConfig
    fingerprint: str
    tokenizer: str | None
    """Digest of the tokenizer's file on the driver; a worker with another file is refused."""
    libraries: Mapping[str, str]
    """Versions of optional libraries on the driver; a worker with others is refused."""

    def __call__(self, unit: WorkUnit) -> str:
        """Publish a work unit; return its name."""
        check_libraries(self.libraries)
        built = read_table(self.store, corpus_layout.built_records_path(unit.name), BUILT_RECORD)
        choices = read_table(self.store, corpus_layout.choice_path(unit.name), CHOICES)
        kept = choices["dropped"].is_null()
        records = self._records(built.filter(kept))
        splits: list[str] = choices["split"].filter(kept).to_pylist()
        counts = Counter[str](_building_counts(self.store, unit))
        counts.update(f"dropped_{reason}" for reason in choices["dropped"].drop_null().to_pylist())
        published = self._put_records(unit, records, splits)
        drawn = _Drawn(
            counts=counts,
            histograms=measure_records(records),
            num_bytes=measure_bytes(corpus_layout.RECORDS, published, splits),
        )
        self._draw(unit, records, splits, 0, drawn)
        put_table(self.store, corpus_layout.tags_path(unit.name), count_tags(records), TAG_COUNTS)
        put_json(self.store, corpus_layout.commit_path(unit.name), {
            "source": unit.source,
            "recipe": self.fingerprint,
            "records": dict(Counter(splits)),
            "without_size": records.filter(pc.field("width").is_null() | pc.field("height").is_null()).num_rows,
            **drawn.as_counts(),
        })  # fmt: skip
        return unit.name

    def add_epochs(self, name: str, first: int, earlier: Sequence[int]) -> str:
        """Draw the texts of the epochs from `first` from the published records of a work unit; return its name.

        The schedule applies as in a job with so many epochs: its epochs count from the first one of the corpus.

        Args:
            name: of the work unit.
            first: the first added epoch.
            earlier: the numbers of epochs of the extensions before, whose examples stay.

        Raises:
            StoreError: the records are not those that were published.
        """
        check_libraries(self.libraries)
        commit = read_json(self.store, corpus_layout.commit_path(name))
        unit = WorkUnit(name=name, source=commit["source"])
        records, splits = self._published(name, commit["records"])
        paths = [corpus_layout.added_path(epochs, name) for epochs in earlier]
        before = [commit, *(read_json(self.store, path) for path in paths)]
        drawn = _Drawn(exemplified={example["task"] for part in before for example in part["samples"]})
        self._draw(unit, records, splits, first, drawn)
        added = {"source": commit["source"], "recipe": self.fingerprint, **drawn.as_counts()}
        put_json(self.store, corpus_layout.added_path(self.config.epochs, name), added)
        return name

    def _draw(self, unit: WorkUnit, records: pa.Table, splits: Sequence[str], first: int, drawn: _Drawn) -> None:
        """Write the texts of all epochs from `first`, and add what is counted of them."""
        for epoch in range(first, self.config.epochs):
            rows = self._put_epoch(unit, records, splits, epoch, drawn.counts)
            drawn.texts += count_texts(rows, self.config.tokenizer and self.config.tokenizer.context)
            drawn.histograms += measure_texts(rows)
            drawn.num_bytes += measure_bytes(corpus_layout.TEXT, rows, rows["split"].to_pylist())
            examples = [example for example in pick_examples(rows) if example["task"] not in drawn.exemplified]
            drawn.examples += examples
            drawn.exemplified.update(example["task"] for example in examples)

    def _published(self, unit: str, expected: Mapping[str, int]) -> tuple[pa.Table, list[str]]:
        """Return the published records of a work unit, and the split of each."""
        tables, splits = [RECORD.empty_table()], list[str]()
        for split, number in expected.items():
            path = corpus_layout.records_path(unit, Split(split))
            try:
                table = read_table(self.store, path, RECORD)
            except FileNotFoundError as err:
                raise StoreError(f"{self.store.url}/{path}: is missing; restore the {number} records of it") from err
            if table.num_rows != number:
                raise StoreError(
                    f"{self.store.url}/{path}: has {table.num_rows} records, expected {number}; restore it"
                )
            tables.append(table)
            splits += [split] * number
        return pa.concat_tables(tables), splits

    @cached_property
    def _quality(self) -> Mapping[str, QualityTerms]:
        """The quality terms of each source, from the popularity of a sample of its records."""
        sample = read_table(self.store, corpus_layout.POPULARITY, POPULARITY).to_pylist()
        images: dict[int, list[Popularity]] = {}
        for row in sample:
            images.setdefault(row["rank"], []).append(_popularity(row))
        return {
            source: QualityTerms(self.config.words, images.get(rank, ()))
            for rank, source in enumerate(self.config.sources)
        }

    def _records(self, built: pa.Table) -> pa.Table:
        """Return RECORD: the built records, with quality terms if the source has none of its own."""
        rows = built.select(["source", "quality", "rating_asked", "score", "favorites", "year"]).to_pylist()
        quality = [
            row["quality"] or self._quality[row["source"]](_popularity({**row, "rating": row["rating_asked"]}))
            for row in rows
        ]
        field = RECORD.field("quality")
        table = built.select(RECORD.names)
        return table.set_column(RECORD.get_field_index("quality"), field, pa.array(quality, field.type)).cast(RECORD)

    def _put_records(self, unit: WorkUnit, records: pa.Table, splits: Sequence[str]) -> pa.Table:
        """Write the records; return them as published."""
        nulls = pa.nulls(records.num_rows, pa.string())
        captions = (records["long"], records["short"], nulls, nulls)
        whole = pa.Table.from_arrays([*records.columns, *captions], schema=PUBLISHED_WITH_LANGUAGE)
        schema = published_schema(knows_language=self.config.knows_language)
        published = whole.select(schema.names).cast(schema)
        for split in Split:
            table = published.filter(pa.array([side == split for side in splits], pa.bool_()))
            if table.num_rows:
                metadata = {str(FooterKey.SCHEMA_VERSION): RECORD_VERSION, str(FooterKey.RECIPE): self.fingerprint}
                put_table(self.store, corpus_layout.records_path(unit.name, split), table, schema, metadata)
        return published

    def _put_epoch(
        self, unit: WorkUnit, records: pa.Table, splits: Sequence[str], epoch: int, counts: Counter[str]
    ) -> pa.Table:
        """Write the texts of an epoch, for the shuffle if there is one; return them."""
        rendered = render_table(
            records,
            render_in(self.config, unit.source, epoch),
            epoch=epoch,
            seed=self.config.seed,
            splits=splits,
            weight=weight_in(self.config.schedule, unit.source, epoch),
        )
        for reason, number in rendered.drops.items():
            counts[f"unrendered_{reason}"] += number
        rows = rendered.rows if self._tokens is None else count_tokens(rendered.rows, self._tokens)
        for split in Split:
            table = rows.filter(pc.field("split") == str(split))
            if not table.num_rows:
                continue
            if self.config.shuffle:
                path = corpus_layout.staged_texts_path(unit.name, split, epoch)
                put_table(self.store, path, with_places(table, self.config.shuffle.seed), STAGED_TEXT)
                continue
            for form in self.config.formats:
                self._put_texts(corpus_layout.text_path(unit.name, split, epoch, form), table, form)
            if self.config.tokenizer and self.config.tokenizer.pack:
                plan = pack(table["n_tokens"].to_pylist(), self.config.tokenizer.pack)
                counts["texts_in_no_pack"] += table.num_rows - plan.num_rows
                put_table(self.store, corpus_layout.packing_path(unit.name, split, epoch), plan, PACKING)
        return rows

    @cached_property
    def _tokens(self) -> TextTokenizer | None:
        config = self.config.tokenizer
        return TextTokenizer(config.path, bos=config.bos, eos=config.eos, digest=self.tokenizer) if config else None

    def _put_texts(self, path: str, table: pa.Table, form: Format) -> None:
        attempt = uuid.uuid4().hex
        put_if_absent(self.store, path, encode_texts(table, form, self.fingerprint, attempt), attempt)


def _popularity(row: Mapping[str, Any]) -> Popularity:
    rating = Rating(row["rating"]) if row["rating"] else None
    return Popularity(rating=rating, score=row["score"], favorites=row["favorites"], year=row["year"])


def _building_counts(store: Store, unit: WorkUnit) -> dict[str, int]:
    data = store.get(corpus_layout.built_records_path(unit.name))
    metadata: Mapping[bytes, bytes] = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    return json.loads(metadata[COUNTS.encode()])
