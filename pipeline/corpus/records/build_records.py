"""Builds records: the facts of several sources about an image are merged and normalised, or dropped with a reason."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig, Rating
from pipeline.config.corpus_config import CaptionsConfig, TableConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_table, read_table
from pipeline.corpus.libraries import check_libraries
from pipeline.corpus.records.clean_captions import clean_long, clean_short
from pipeline.corpus.records.dedupe_and_split import IDENTITIES, identity_rows
from pipeline.corpus.records.languages import detect_language
from pipeline.corpus.records.metadata_terms import DATABASE_RATINGS, LETTER_RATINGS, rating_terms
from pipeline.corpus.records.select_records import TAG_FIELDS, RecordSelector
from pipeline.corpus.records.tag_relations import Implications, implied_tags
from pipeline.corpus.records.tags import CleanTags, TagCleaner, TagDrop, TagType, clean_terms
from pipeline.corpus.tables.column_mapping import LISTS, SourceFacts
from pipeline.corpus.tables.identity import fingerprint, image_identity, join_key, normal_url
from pipeline.corpus.tables.join import JOINED, KEYS
from pipeline.corpus.tables.source_images import SourceImage, WorkUnit, images_of
from pipeline.corpus.tables.tag_scores import with_threshold
from pipeline.storage import Store
from schemas.record import RECORD

BUILT_RECORD: pa.Schema = pa.schema([*RECORD, pa.field("rating_asked", pa.string())])
"""`staging/drafts`: records before their quality terms, and the rating on which the terms may depend."""

COUNTS = "joyfleet.counts"
"""Key of the file's footer: a JSON object of counts."""
_KINDS = tuple(TagType)

RATINGS: Mapping[str, Rating] = {
    **{str(number): rating for number, rating in DATABASE_RATINGS.items()},
    **LETTER_RATINGS,
    **{rating.value: rating for rating in Rating},
    "safe": Rating.GENERAL,
    "nsfw": Rating.QUESTIONABLE,
    "explicit, nsfw": Rating.EXPLICIT,
    "nsfw, explicit": Rating.EXPLICIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBuilder:
    """Builds the records of work units; pickles."""

    store: Store
    config: CorpusConfig
    cleaner: TagCleaner
    implications: Implications
    """Implied tags that are added to a record; empty if none are."""
    rules: int
    """Version of the rules (`corpus_job.RULES`)."""
    libraries: Mapping[str, str]
    """Versions of optional libraries on the driver; a worker with others is refused."""

    def keys(self, unit: WorkUnit) -> str:
        """Write the join keys of the images of a work unit; return the unit's name."""
        kinds = sorted({table.join.by for table in joins_of(self.config, unit.source) if table.join})
        rows = [
            {"row": image.row, "by": str(by), "key": join_key(image.facts, by)}
            for image in images_of(unit, _entry(self.config, unit), self.store, Counter(), self.rules)
            for by in kinds
        ]
        put_table(self.store, corpus_layout.keys_path(unit.name), pa.Table.from_pylist(rows, schema=KEYS), KEYS)
        return unit.name

    def records(self, unit: WorkUnit) -> str:
        """Write the records of a work unit with counts, and their identities; return the unit's name."""
        check_libraries(self.libraries)
        counts: Counter[str] = Counter()
        joins = joins_of(self.config, unit.source)
        joined = [(table, _joined(self.store, table.name, unit.name)) for table in joins]
        select = RecordSelector(self.config.filters, unit.source)
        records: list[dict[str, Any]] = []
        identities: list[dict[str, Any]] = []
        for image in images_of(unit, _entry(self.config, unit), self.store, counts, self.rules):
            counts["images"] += 1
            facts = _merged(image, joined, counts)
            record = self._record(image.record_id, unit.source, facts, counts) if facts else None
            if facts and record:
                selection = select(record, self._all_tags(facts, record) if select.asks_tags else (), counts)
                chosen = {"filtered": selection.dropped, "known": selection.known}
                identities.append({"row": len(records), **_identity(facts, record), **chosen})
                records.append(record)
        # The records are written last: their file marks the work unit as done.
        put_table(self.store, corpus_layout.identities_path(unit.name), identity_rows(identities), IDENTITIES)
        table = pa.Table.from_pylist(records, schema=BUILT_RECORD)
        path = corpus_layout.built_records_path(unit.name)
        put_table(self.store, path, table, BUILT_RECORD, {COUNTS: json.dumps(counts)})
        return unit.name

    def _record(self, record_id: str, source: str, facts: SourceFacts, counts: Counter[str]) -> dict[str, Any] | None:
        tags = self._tags(facts, counts)
        short = clean_short(facts.get("short"))
        long = clean_long(facts.get("long"))
        for name, caption in (("short", short), ("long", long)):
            if caption.drop and facts.get(name):
                counts[f"{name}_{caption.drop}"] += 1
        if not (short.text or long.text or tags.general or tags.special):
            counts["dropped_nothing_known"] += 1
            return None
        rating = _rating(facts.get("rating"), counts)
        return {
            "id": record_id,
            "source": source,
            "key": facts.get("key") or facts.get("id") or record_id,
            "image": image_identity(facts, record_id),
            "url": facts.get("url"),
            **{name: getattr(tags, name) for name in TAG_FIELDS},
            "rating": rating_terms(self.config.words, rating),
            "quality": _quality(facts, counts),
            "width": _positive(facts.get("width")),
            "height": _positive(facts.get("height")),
            "short": short.text,
            "long": long.text,
            **{name: facts.get(name) for name in ("title", "score", "favorites", "year")},
            "language": self._language(facts, long.text or short.text, counts),
            "rating_asked": rating.value if rating else None,
        }

    def _language(self, facts: SourceFacts, caption: str | None, counts: Counter[str]) -> str | None:
        """Return the language that the source names, else the one that is detected in the caption."""
        config = self.config.languages
        language: str | None = facts.get("language")
        if language is None and config and caption:
            language = detect_language(caption, config)
        if self.config.knows_language:
            counts[f"language_{language or ('uncertain' if caption and config else 'unknown')}"] += 1
        return language

    def _all_tags(self, facts: SourceFacts, record: Mapping[str, Any]) -> frozenset[str]:
        """Return the tags of a record, and those that the rules for tags have removed."""
        raw = (self.cleaner.current(tag) for _, tag in _typed_tags(facts))
        return frozenset((*raw, *(tag for field in TAG_FIELDS for tag in record[field])))

    def _tags(self, facts: SourceFacts, counts: Counter[str]) -> CleanTags:
        typed = _typed_tags(facts)
        if self.implications:
            implied = list(implied_tags(typed, self.cleaner.current, self.implications))
            counts["tag_implied_added"] += len(implied)
            typed += implied
        clean = self.cleaner(typed)
        for reason, number in clean.drops.items():
            counts[f"tag_{reason}"] += number
        return clean


def _typed_tags(facts: SourceFacts) -> list[tuple[TagType, str]]:
    typed = [(kind, tag) for kind in _KINDS for tag in facts.get(kind) or ()]
    return typed + [(TagType.GENERAL, tag) for tag in facts.get("tags") or ()]


def joins_of(config: CorpusConfig, source: str) -> list[TableConfig]:
    """Return the tables in which the images of a source are looked up."""
    return [table for table in config.joins if table.join and (not table.join.to or source in table.join.to)]


def _entry(config: CorpusConfig, unit: WorkUnit) -> CaptionsConfig | None:
    return next((with_threshold(entry, config.tags) for entry in config.captions if entry.name == unit.source), None)


def _joined(store: Store, table: str, unit: str) -> dict[int, SourceFacts]:
    try:
        rows = read_table(store, corpus_layout.joined_path(table, unit), JOINED).to_pylist()
    except FileNotFoundError:  # the table has no image of this work unit
        return {}
    return {row["row"]: row for row in rows}


def _merged(
    image: SourceImage, joined: Sequence[tuple[TableConfig, Mapping[int, SourceFacts]]], counts: Counter[str]
) -> SourceFacts | None:
    """Return all facts about an image: its own source first, then each table. Tags are concatenated.

    None if a required join has no match.
    """
    facts = dict(image.facts)
    for table, rows in joined:
        match = rows.get(image.row)
        if match is None:
            has_key = table.join is not None and join_key(image.facts, table.join.by) is not None
            counts[f"unmatched_{table.name}_{'not_in_table' if has_key else 'no_key'}"] += 1
            if table.join and table.join.required:
                counts["dropped_unmatched"] += 1
                return None
            continue
        for name, value in match.items():
            if name in LISTS and value:
                facts[name] = [*(facts.get(name) or ()), *value]
            elif facts.get(name) is None:
                facts[name] = value
    return facts


def _rating(text: str | None, counts: Counter[str]) -> Rating | None:
    if not text:
        return None
    rating = RATINGS.get(text.strip().lower())
    counts["bad_rating"] += rating is None
    return rating


def _quality(facts: SourceFacts, counts: Counter[str]) -> list[str]:
    drops: Counter[TagDrop] = Counter()
    terms = clean_terms(facts.get("quality") or (), drops)
    for reason, number in drops.items():
        counts[f"quality_{reason}"] += number
    return terms


def _positive(size: int | None) -> int | None:
    return size if size and size > 0 else None


def _identity(facts: SourceFacts, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts by which a record is compared; `dedupe_and_split.IDENTITIES` holds their hashes."""
    digests = {
        name: digest.strip().lower() if digest else None for name in ("sha256", "md5") for digest in [facts.get(name)]
    }
    url = normal_url(facts.get("url"))
    names = [record["id"], facts.get("id"), facts.get("key"), *digests.values(), url]
    short = fingerprint(record["short"])
    return {
        "root": record["image"],
        "id": record["id"],
        **digests,
        "url": url,
        "caption": fingerprint(record["long"]) or short,
        "short": short,
        "names": sorted({name for name in names if name}),
        **{name: record[name] for name in ("score", "favorites", "year")},
        "rating": record["rating_asked"],
    }
