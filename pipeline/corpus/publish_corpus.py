"""Publishes a work unit: its records, its training texts for each epoch, and the counts of both.

A kill at any line leaves complete files with correct rows. The counts are written last and are the commit of the unit.
"""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import CorpusConfig, Rating
from pipeline.config.corpus_config import Format
from pipeline.config.corpus_filters import weight_in
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_table
from pipeline.corpus.libraries import check_libraries
from pipeline.corpus.records.build_records import BUILT_RECORD, COUNTS
from pipeline.corpus.records.dedupe_and_split import CHOICES, POPULARITY
from pipeline.corpus.records.metadata_terms import Popularity, QualityTerms
from pipeline.corpus.report.census import (
    TAG_COUNTS,
    count_tags,
    count_texts,
    measure_bytes,
    measure_records,
    measure_texts,
    pick_examples,
)
from pipeline.corpus.tables.source_images import WorkUnit
from pipeline.corpus.text.count_tokens import count_tokens
from pipeline.corpus.text.pack_texts import PACKING, pack
from pipeline.corpus.text.render_texts import render_table
from pipeline.corpus.text.schedule import render_in
from pipeline.corpus.text.tokenizer import TextTokenizer
from pipeline.storage import Store, put_if_absent
from schemas.corpus_row import CORPUS_ROW, CORPUS_VERSION
from schemas.footer import FooterKey
from schemas.record import PUBLISHED_WITH_LANGUAGE, RECORD, RECORD_VERSION, Split, published_schema

_SKIPPABLE = (0x184D2A50).to_bytes(4, "little")
"""Begins a zstd frame that readers skip (RFC 8878, 3.1.2); it holds the id of the attempt."""


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
        num_bytes = measure_bytes(corpus_layout.RECORDS, published, splits)
        histograms = measure_records(records)
        texts: list[dict[str, Any]] = []
        examples: list[dict[str, Any]] = []
        for epoch in range(self.config.epochs):
            rows = self._put_epoch(unit, records, splits, epoch, counts)
            texts += count_texts(rows, self.config.tokenizer and self.config.tokenizer.context)
            histograms += measure_texts(rows)
            num_bytes += measure_bytes(corpus_layout.TEXT, rows, rows["split"].to_pylist())
            known = {example["task"] for example in examples}
            examples += [example for example in pick_examples(rows) if example["task"] not in known]
        put_table(self.store, corpus_layout.tags_path(unit.name), count_tags(records), TAG_COUNTS)
        put_json(self.store, corpus_layout.commit_path(unit.name), {
            "source": unit.source,
            "recipe": self.fingerprint,
            "records": dict(Counter(splits)),
            "without_size": records.filter(pc.field("width").is_null() | pc.field("height").is_null()).num_rows,
            "counts": dict(counts),
            "texts": texts,
            "samples": examples,
            "histograms": [[*key, number] for key, number in sorted(histograms.items())],
            "num_bytes": dict(num_bytes),
        })  # fmt: skip
        return unit.name

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
        """Write the texts of an epoch; return them."""
        source = unit.name.partition("/")[0]
        rendered = render_table(
            records,
            render_in(self.config, source, epoch),
            epoch=epoch,
            seed=self.config.seed,
            splits=splits,
            weight=weight_in(self.config.schedule, source, epoch),
        )
        for reason, number in rendered.drops.items():
            counts[f"unrendered_{reason}"] += number
        rows = rendered.rows if self._tokens is None else count_tokens(rendered.rows, self._tokens)
        for split in Split:
            table = rows.filter(pc.field("split") == str(split))
            if not table.num_rows:
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
        if form is Format.JSONL:
            attempt = uuid.uuid4().hex
            put_if_absent(self.store, path, json_lines(table, attempt), attempt)
            return
        metadata = {str(FooterKey.SCHEMA_VERSION): CORPUS_VERSION, str(FooterKey.RECIPE): self.fingerprint}
        put_table(self.store, path, table, CORPUS_ROW, metadata)


def json_lines(table: pa.Table, attempt: str) -> bytes:
    """Return rows as JSON Lines in one zstd frame, followed by the attempt id in a frame that readers skip."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()
    packed: bytes = pa.Codec("zstd").compress(lines, asbytes=True)
    return packed + _SKIPPABLE + len(attempt).to_bytes(4, "little") + attempt.encode()


def _popularity(row: Mapping[str, Any]) -> Popularity:
    rating = Rating(row["rating"]) if row["rating"] else None
    return Popularity(rating=rating, score=row["score"], favorites=row["favorites"], year=row["year"])


def _building_counts(store: Store, unit: WorkUnit) -> dict[str, int]:
    data = store.get(corpus_layout.built_records_path(unit.name))
    metadata: Mapping[bytes, bytes] = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    return json.loads(metadata[COUNTS.encode()])
