"""Records for the TIPO v1 trainer (UwULLM), in the three files of its data set.

Its loader renders a row by the columns that the row has: `original_caption` means GBC, `caption_llava` coyo, anything
else danbooru. Each renderer fails or writes malformed texts for rows that lack what it needs, so a record goes to the
first file whose renderer can use it: its own kind's, then danbooru, coyo, GBC.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.corpus.export.corpus_form import CorpusForm, Reads
from pipeline.corpus.export.record_rules import MIN_TAGS, as_text, dropped_for, has_size
from pipeline.corpus.records.clean_captions import clean_short
from schemas.trainer_rows import TIPO_V1_COYO, TIPO_V1_DANBOORU, TIPO_V1_GBC

Row = Mapping[str, Any]

DANBOORU, COYO, GBC = "danbooru2023-prompt-gen-data.parquet", "coyo11m-meta.parquet", "GBC10M-top-level-caption.parquet"
"""Names that the loader opens, in the folder of its own module."""
KINDS = {"coyo": COYO, "gbc": GBC}
"""Beginnings of the names of sources, as the preset's styles have them, and the file of their kind."""
NO_PERSONS = "no humans"


def danbooru_row(record: Row) -> dict[str, Any] | None:
    """Return a row of the danbooru file, or None if its renderer cannot use the record.

    The renderer gives all of `special` and at most all but one of three general tags. Where `special` is empty it
    writes `tag: , ` in a tenth of the texts, so a record without persons has its first general tag there.
    """
    general = [tag for tag in record["general"] if not _is_year(tag)]
    special = list(record["special"])
    if not special and general:
        special = [NO_PERSONS if NO_PERSONS in general else general[0]]
        general.remove(special[0])
    if len(general) < MIN_TAGS or not has_size(record):
        return None
    return {
        **{name: record[name] for name in ("id", "meta", "rating", "artist", "character", "copyright")},
        "general": general,
        "special": special,
        "quality": as_text(record["quality"]),
        "width": record["width"],
        "height": record["height"],
        "florence_short": record["short"],
        "pixtral_caption": record["long"],
    }


def coyo_row(record: Row) -> dict[str, Any] | None:
    """Return a row of the coyo file, or None if its renderer cannot use the record; it has no metadata.

    The renderer puts a blank for each underscore, also in `^_^`. Done here, a tag such as `_` is left out.
    """
    spaced = (" ".join(tag.replace("_", " ").split()) for tag in (*record["special"], *record["general"]))
    tags = [tag for tag in dict.fromkeys(spaced) if tag]
    if len(tags) < MIN_TAGS or not (record["short"] and record["long"]):
        return None
    return {
        "id": record["id"],
        "caption_llava": record["long"],
        "caption_llava_short": record["short"],
        "tags_open_images": "[]",
        # The loader evaluates it as Python, where escapes of JSON for characters beyond the BMP mean two characters.
        "tags_booru": json.dumps(tags, ensure_ascii=False),
    }


def gbc_row(record: Row) -> dict[str, Any] | None:
    """Return a row of the GBC file, or None if its renderer cannot use the record; it has only captions."""
    if not (record["short"] and record["long"]):
        return None
    return {
        "id": record["id"],
        "original_caption": clean_short(record["title"]).text or record["short"],
        "short_caption": record["short"],
        "detail_caption": record["long"],
    }


ROWS: Mapping[str, Callable[[Row], dict[str, Any] | None]] = {DANBOORU: danbooru_row, COYO: coyo_row, GBC: gbc_row}
FILES = {DANBOORU: TIPO_V1_DANBOORU, COYO: TIPO_V1_COYO, GBC: TIPO_V1_GBC}


def convert(records: pa.Table, counts: Counter[str]) -> dict[str, pa.Table]:
    """Return the rows of the records that the trainer can use."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in FILES}
    for record in records.to_pylist():
        kind = next((file for start, file in KINDS.items() if record["source"].startswith(start)), DANBOORU)
        for name in (kind, *(name for name in ROWS if name != kind)):
            row = ROWS[name](record)
            if row is not None:
                rows[name].append(row)
                break
        else:
            counts[dropped_for(record, needs_captions=True)] += 1
    return {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in FILES.items()}


def _is_year(tag: str) -> bool:
    """Whether the renderer takes a tag for a year and drops it."""
    return tag.isnumeric() and len(tag) == 4


FORM = CorpusForm(
    name="tipo-v1",
    summary="records for the TIPO v1 trainer, UwULLM",
    reads=Reads.RECORDS,
    convert=lambda _config, _tokenizer: convert,
    hint="Copy the files of a split into `src/dataset/tipo/` of UwULLM; its loader opens them by their names.",
)
