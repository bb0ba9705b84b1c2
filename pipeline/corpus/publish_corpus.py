"""A part as it is published: its records, and for each epoch its training texts, with counts of all of it.

What a kill leaves at each line is whole files with right rows; the part is done when its counts are there, last.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config import CorpusConfig, Rating
from pipeline.config.corpus_config import Format, TokenizerConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_json, put_table, read_table
from pipeline.corpus.expected import kind_of
from pipeline.corpus.records.build_records import COUNTS, DRAFT
from pipeline.corpus.records.corpus_record import Record, records_of
from pipeline.corpus.records.dedupe_and_split import CHOICES, POPULARITY
from pipeline.corpus.records.metadata_terms import Popularity, QualityWords
from pipeline.corpus.tables.source_images import WorkUnit
from pipeline.corpus.text.count_tokens import TokenCounter
from pipeline.corpus.text.pack_texts import PACKING, pack
from pipeline.corpus.text.render_texts import render_table
from pipeline.storage import Store, put_if_absent
from schemas.corpus_row import CORPUS_ROW, CORPUS_VERSION
from schemas.footer import FooterKey
from schemas.record import RECORD, RECORD_VERSION, V1_TEXTS, Split

PUBLISHED: pa.Schema = pa.schema([*RECORD, *V1_TEXTS])
TAG_FIELDS = ("general", "special", "character", "copyright", "artist", "meta", "rating", "quality")
TAG_COUNTS: pa.Schema = pa.schema([("category", pa.string()), ("tag", pa.string()), ("records", pa.int64())])

_SKIPPABLE = (0x184D2A50).to_bytes(4, "little")
"""Begins a zstd frame that readers pass over (RFC 8878, 3.1.2): there the attempt's id stands."""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Publishes parts; pickles, and reads the sample that percentiles are of once per process."""

    store: Store
    config: CorpusConfig
    fingerprint: str

    def __call__(self, part: WorkUnit) -> str:
        """Publish a part; return its name."""
        drafts = read_table(self.store, corpus_layout.drafts_path(part.name), DRAFT)
        choices = read_table(self.store, corpus_layout.choice_path(part.name), CHOICES)
        kept = choices["dropped"].is_null()
        records = self._records(drafts.filter(kept))
        splits: list[str] = choices["split"].filter(kept).to_pylist()
        counts = Counter[str](_draft_counts(self.store, part))
        counts.update({f"dropped_{reason}": number for reason, number in _value_counts(choices["dropped"]).items()})
        self._put_records(part, records, splits)
        texts: list[dict[str, Any]] = []
        samples: list[dict[str, Any]] = []
        for epoch in range(self.config.epochs):
            rows, drawn = self._put_epoch(part, records, splits, epoch, counts)
            texts += _text_counts(rows, drawn, self.config.tokenizer and self.config.tokenizer.context)
            samples = samples or _samples(rows)
        self._put_tags(part, records)
        put_json(self.store, corpus_layout.part_path(part.name), {
            "source": part.source,
            "recipe": self.fingerprint,
            "records": dict(Counter(splits)),
            "without_size": records["width"].null_count,
            "counts": dict(counts),
            "texts": texts,
            "samples": samples,
        })  # fmt: skip
        return part.name

    @cached_property
    def _quality(self) -> Mapping[str, QualityWords]:
        """The quality words of each source, by the popularity of all its records."""
        sample = read_table(self.store, corpus_layout.POPULARITY, POPULARITY).to_pylist()
        images: dict[int, list[Popularity]] = {}
        for row in sample:
            images.setdefault(row["rank"], []).append(_popularity(row))
        return {
            source: QualityWords(self.config.words, images.get(rank, ()))
            for rank, source in enumerate(self.config.sources)
        }

    def _records(self, drafts: pa.Table) -> pa.Table:
        """RECORD of drafts: with quality words where the source brought none."""
        rows = drafts.select(["source", "quality", "rating_asked", "score", "favorites", "year"]).to_pylist()
        quality = [
            row["quality"] or self._quality[row["source"]](_popularity({**row, "rating": row["rating_asked"]}))
            for row in rows
        ]
        table = drafts.select(RECORD.names)
        place = table.schema.get_field_index("quality")
        field = RECORD.field("quality")
        return table.set_column(place, field, pa.array(quality, field.type)).cast(RECORD)

    def _put_records(self, part: WorkUnit, records: pa.Table, splits: Sequence[str]) -> None:
        nothing = pa.nulls(records.num_rows, pa.string())
        texts = (records["long"], records["short"], nothing, nothing)
        published = pa.Table.from_arrays([*records.columns, *texts], schema=PUBLISHED)
        for split in Split:
            table = published.filter(pa.array([side == split for side in splits], pa.bool_()))
            if table.num_rows:
                metadata = {str(FooterKey.SCHEMA_VERSION): RECORD_VERSION, str(FooterKey.RECIPE): self.fingerprint}
                put_table(self.store, corpus_layout.records_path(part.name, split), table, PUBLISHED, metadata)

    def _put_epoch(
        self, part: WorkUnit, records: pa.Table, splits: Sequence[str], epoch: int, counts: Counter[str]
    ) -> tuple[pa.Table, pa.Table]:
        """Put the texts of an epoch; return them, and the record of each."""
        rendered = render_table(records, self.config.render, epoch=epoch, seed=self.config.seed, splits=splits)
        for reason, number in rendered.drops.items():
            counts[f"unrendered_{reason}"] += number
        rows = rendered.rows if self._tokens is None else self._tokens.count(rendered.rows)
        for split in Split:
            table = rows.filter(pc.field("split") == str(split))
            if not table.num_rows:
                continue
            for form in self.config.formats:
                self._put_texts(corpus_layout.text_path(part.name, split, epoch, form), table, form)
            if self.config.tokenizer and self.config.tokenizer.pack:
                plan = pack(table["n_tokens"].to_pylist(), self.config.tokenizer.pack)
                counts["texts_in_no_pack"] += table.num_rows - plan.num_rows
                put_table(self.store, corpus_layout.packing_path(part.name, split, epoch), plan, PACKING)
        return rows, records.take(pa.array(rendered.places, pa.int64()))

    @cached_property
    def _tokens(self) -> TokenCounter | None:
        config = self.config.tokenizer
        return TokenCounter(tokenizer_file(config), bos=config.bos, eos=config.eos) if config else None

    def _put_texts(self, path: str, table: pa.Table, form: Format) -> None:
        if form is Format.JSONL:
            attempt = uuid.uuid4().hex
            put_if_absent(self.store, path, json_lines(table, attempt), attempt)
            return
        metadata = {str(FooterKey.SCHEMA_VERSION): CORPUS_VERSION, str(FooterKey.RECIPE): self.fingerprint}
        put_table(self.store, path, table, CORPUS_ROW, metadata)

    def _put_tags(self, part: WorkUnit, records: pa.Table) -> None:
        found = [
            {"category": name, "tag": tag, "records": number}
            for name in TAG_FIELDS
            for tag, number in sorted(_value_counts(pc.call_function("list_flatten", [records[name]])).items())
        ]
        table = pa.Table.from_pylist(found, schema=TAG_COUNTS)
        put_table(self.store, corpus_layout.tags_path(part.name), table, TAG_COUNTS)


def tokenizer_file(config: TokenizerConfig) -> str:
    """Return the tokenizer's file, of a folder the one in it."""
    path = Path(config.path).expanduser()
    return str(path / "tokenizer.json" if path.is_dir() else path)


def json_lines(table: pa.Table, attempt: str) -> bytes:
    """Return rows as JSON Lines in one zstd frame, and the attempt behind it, where readers pass over it."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()
    packed: bytes = pa.Codec("zstd").compress(lines, asbytes=True)
    return packed + _SKIPPABLE + len(attempt).to_bytes(4, "little") + attempt.encode()


def _popularity(row: Mapping[str, Any]) -> Popularity:
    rating = Rating(row["rating"]) if row["rating"] else None
    return Popularity(rating=rating, score=row["score"], favorites=row["favorites"], year=row["year"])


def _draft_counts(store: Store, part: WorkUnit) -> dict[str, int]:
    data = store.get(corpus_layout.drafts_path(part.name))
    metadata: Mapping[bytes, bytes] = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    return json.loads(metadata[COUNTS.encode()])


def _value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in column.drop_null().value_counts().to_pylist()}


GROUP = ("epoch", "source", "split", "kind", "has_meta", "task", "length", "gen_meta", "loss")
"""What texts are counted by."""
SAMPLES = 20
"""Texts of a part from which the card draws."""


def _text_counts(rows: pa.Table, records: pa.Table, context: int | None) -> list[dict[str, Any]]:
    """Rows of `schemas.corpus_report.CORPUS_TEXTS`; `records` are those of the rows, one for each."""
    drawn = [(kind_of(record), _has_meta(record)) for record in records_of(records)]
    tokens = rows["n_tokens"].to_pylist()
    long = [None if context is None or number is None else int(number > context) for number in tokens]
    counted = rows
    for name, values, kind in (
        ("kind", [kind for kind, _ in drawn], pa.string()),
        ("has_meta", [has for _, has in drawn], pa.bool_()),
        ("too_long", long, pa.int64()),
    ):
        counted = counted.append_column(name, pa.array(values, kind))
    sums = ("n_tokens", "n_trained", "too_long")
    grouped = counted.group_by(list(GROUP)).aggregate([([], "count_all"), *((name, "sum") for name in sums)])
    named = grouped.rename_columns([*GROUP, "rows", *sums])
    return sorted(named.to_pylist(), key=lambda row: [str(row[name]) for name in GROUP])


def _has_meta(record: Record) -> bool:
    """Whether a metadata line can be written of it."""
    lines = (record.meta, record.rating, record.artist, record.character, record.copyright, record.quality)
    return any(lines) or bool(record.width and record.height)


def _samples(rows: pa.Table) -> list[dict[str, Any]]:
    """The texts with the smallest draws: any others would do, these are the same each time."""
    ordered = rows.sort_by([("seed", "ascending")]).slice(0, SAMPLES)
    return ordered.select(["id", "seed", "task", "user", "output"]).to_pylist()
