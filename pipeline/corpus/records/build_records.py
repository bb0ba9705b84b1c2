"""Facts become records: what several places know of an image laid together and normalised, or dropped with a reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig, Rating
from pipeline.config.corpus_config import TableConfig
from pipeline.corpus import corpus_layout
from pipeline.corpus.corpus_files import put_table, read_table
from pipeline.corpus.records.clean_captions import clean_long, clean_short
from pipeline.corpus.records.dedupe_and_split import IDENTITIES, identity_rows
from pipeline.corpus.records.metadata_terms import DATABASE_RATINGS, LETTER_RATINGS, rating_words
from pipeline.corpus.records.tags import CleanTags, TagCleaner, TagType
from pipeline.corpus.tables.column_mapping import LISTS, SourceFacts
from pipeline.corpus.tables.identity import fingerprint, image_identity, join_key, normal_url
from pipeline.corpus.tables.join import JOINED, KEYS
from pipeline.corpus.tables.source_images import Image, WorkUnit, images_of
from pipeline.storage import Store
from schemas.record import RECORD

DRAFT: pa.Schema = pa.schema([*RECORD, pa.field("rating_asked", pa.string())])
"""`staging/drafts`: records whose quality words are still to come, and the rating that these may go by."""

COUNTS = "joyfleet.counts"
"""Key of a draft's footer: a JSON object of what was counted while it was made."""

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
class Drafts:
    """Makes the records of parts; pickles."""

    store: Store
    config: CorpusConfig
    cleaner: TagCleaner

    def keys(self, part: WorkUnit) -> str:
        """Write what the images of a part are joined by; return the part's name."""
        kinds = sorted({table.join.by for table in joins_of(self.config, part.source) if table.join})
        rows = [
            {"row": image.row, "by": str(by), "key": join_key(image.facts, by)}
            for image in images_of(part, _entry(self.config, part), self.store, Counter())
            for by in kinds
        ]
        put_table(self.store, corpus_layout.keys_path(part.name), pa.Table.from_pylist(rows, schema=KEYS), KEYS)
        return part.name

    def records(self, part: WorkUnit) -> str:
        """Write the records of a part, what they are compared by, and counts; return the part's name."""
        counts: Counter[str] = Counter()
        joins = joins_of(self.config, part.source)
        joined = [(table, _joined(self.store, table.name, part.name)) for table in joins]
        drafts: list[dict[str, Any]] = []
        identities: list[dict[str, Any]] = []
        for image in images_of(part, _entry(self.config, part), self.store, counts):
            counts["images"] += 1
            facts = _laid_together(image, joined, counts)
            draft = self._draft(image.record_id, part.source, facts, counts) if facts else None
            if facts and draft:
                identities.append({"row": len(drafts), **_identity(facts, draft)})
                drafts.append(draft)
        # Drafts last: that they are there says that the part is drafted.
        put_table(self.store, corpus_layout.identities_path(part.name), identity_rows(identities), IDENTITIES)
        table = pa.Table.from_pylist(drafts, schema=DRAFT)
        put_table(self.store, corpus_layout.drafts_path(part.name), table, DRAFT, {COUNTS: json.dumps(counts)})
        return part.name

    def _draft(self, record_id: str, source: str, facts: SourceFacts, counts: Counter[str]) -> dict[str, Any] | None:
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
            **{
                name: getattr(tags, name) for name in ("general", "special", "character", "copyright", "artist", "meta")
            },
            "rating": rating_words(self.config.words, rating),
            "quality": facts.get("quality") or [],
            "width": _positive(facts.get("width")),
            "height": _positive(facts.get("height")),
            "short": short.text,
            "long": long.text,
            **{name: facts.get(name) for name in ("title", "score", "favorites", "year")},
            "rating_asked": rating.value if rating else None,
        }

    def _tags(self, facts: SourceFacts, counts: Counter[str]) -> CleanTags:
        typed = [(kind, tag) for kind in TagType for tag in facts.get(kind.value) or ()]
        typed += [(TagType.GENERAL, tag) for tag in facts.get("tags") or ()]
        clean = self.cleaner(typed)
        for reason, number in clean.drops.items():
            counts[f"tag_{reason}"] += number
        return clean


def joins_of(config: CorpusConfig, source: str) -> list[TableConfig]:
    """The tables that a source's images are looked up in."""
    return [table for table in config.joins if table.join and (not table.join.to or source in table.join.to)]


def _entry(config: CorpusConfig, part: WorkUnit) -> Any:  # noqa: ANN401 - CaptionsConfig or None
    return next((entry for entry in config.captions if entry.name == part.source), None)


def _joined(store: Store, table: str, part: str) -> dict[int, SourceFacts]:
    try:
        rows = read_table(store, corpus_layout.joined_path(table, part), JOINED).to_pylist()
    except FileNotFoundError:  # no image of the part is in the table
        return {}
    return {row["row"]: row for row in rows}


def _laid_together(
    image: Image, joined: Sequence[tuple[TableConfig, Mapping[int, SourceFacts]]], counts: Counter[str]
) -> SourceFacts | None:
    """What is known of an image: its own source first, then each table; tags add up. None if a required row lacks."""
    facts = dict(image.facts)
    for table, rows in joined:
        found = rows.get(image.row)
        if found is None:
            known = table.join is not None and join_key(image.facts, table.join.by) is not None
            counts[f"unmatched_{table.name}_{'not_in_table' if known else 'no_key'}"] += 1
            if table.join and table.join.required:
                counts["dropped_unmatched"] += 1
                return None
            continue
        for name, value in found.items():
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


def _positive(size: int | None) -> int | None:
    return size if size and size > 0 else None


def _identity(facts: SourceFacts, draft: Mapping[str, Any]) -> dict[str, Any]:
    """What a record is compared by, as texts; see `choose.IDENTITIES`."""
    digests = {
        name: digest.strip().lower() if digest else None for name in ("sha256", "md5") for digest in [facts.get(name)]
    }
    url = normal_url(facts.get("url"))
    names = [draft["id"], facts.get("id"), facts.get("key"), *digests.values(), url]
    short = fingerprint(draft["short"])
    return {
        "root": draft["image"],
        "id": draft["id"],
        **digests,
        "url": url,
        "caption": fingerprint(draft["long"]) or short,
        "short": short,
        "names": sorted({name for name in names if name}),
        **{name: draft[name] for name in ("score", "favorites", "year")},
        "rating": draft["rating_asked"],
    }
