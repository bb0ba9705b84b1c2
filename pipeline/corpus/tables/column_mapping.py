"""What the rows of well-known data sets say of an image, by the names of their columns.

The names are those of danbooru's API and of the danbooru2023 metadata, the parquet of TIPO v1's trainer,
coyo-hd-11m-llavanext, conceptual-captions-cc12m-llavanext, GBC10M and img2dataset. A config names columns of its own.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config.corpus_config import Columns
from schemas.image_facts import IMAGE_FACTS

SourceFacts = dict[str, Any]
"""A row of `schemas.image_facts.IMAGE_FACTS`; absent fields are null."""

# fmt: off
KNOWN: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "post_id"),
    "key": ("key", "__key__"),
    "url": ("url", "img_url", "image_url", "file_url"),
    "sha256": ("sha256",),
    "md5": ("md5",),
    "general": ("general", "tag_string_general", "tags_open_images", "tags_booru"),
    "character": ("character", "tag_string_character"),
    "copyright": ("copyright", "tag_string_copyright"),
    "artist": ("artist", "tag_string_artist"),
    "meta": ("meta", "tag_string_meta"),
    "tags": ("special", "tags"),
    "rating": ("rating",),
    "quality": ("quality",),
    "width": ("original_width", "image_width", "width"),
    "height": ("original_height", "image_height", "height"),
    "short": ("caption_llava_short", "short_caption", "florence_short", "brief", "short"),
    "long": ("caption_llava", "detail_caption", "pixtral_caption", "phi3v_horny", "florence_long", "description",
             "long"),
    "title": ("title", "original_caption", "caption", "alt_text", "txt"),
    "score": ("score",),
    "favorites": ("fav_count", "favorites"),
    "year": ("year", "created_at"),
}
# fmt: on
"""Field to column names. Of lists all count, one after the other; of the rest the first that the row has."""

LISTS = frozenset(("tags", "general", "character", "copyright", "artist", "meta", "quality"))
INTEGERS = frozenset(("width", "height", "score", "favorites"))
_YEAR = re.compile(r"(?:19|20)\d\d")
INT64 = 2**63


def facts_of(row: Mapping[str, Any], columns: Columns, faults: Counter[str]) -> SourceFacts:
    """Return what a row says.

    Args:
        row: column to value, as JSON, Arrow or CSV give it.
        columns: which column a field is read from, where its name does not tell.
        faults: counts values that are not of their field's form, by reason; such a value is null.
    """
    if "vertices" in row:
        row = {**_descriptions(row), **{name: value for name, value in row.items() if value is not None}}
    named = {str(field): column for field, column in columns.items()}
    facts: SourceFacts = {}
    for field, names in KNOWN.items():
        wanted = (named[field],) if field in named else names
        found = [(name, row[name]) for name in wanted if name is not None and row.get(name) not in (None, "")]
        if found:
            facts[field] = _value(field, found, faults)
    return facts


def _value(field: str, found: list[tuple[str, Any]], faults: Counter[str]) -> Any:  # noqa: ANN401 - of a Facts
    if field in LISTS:
        return [tag for name, value in found for tag in _tag_list(name, value, faults)]
    value = found[0][1]
    read = _integer if field in INTEGERS else _year if field == "year" else _text
    return _or_fault(lambda: read(value), f"bad_{field}", faults)


def _or_fault(read: Callable[[], Any], reason: str, faults: Counter[str]) -> Any:  # noqa: ANN401 - of a Facts
    try:
        return read()
    except ValueError:
        faults[reason] += 1
        return None


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        raise ValueError("not a text")
    return value if isinstance(value, str) else str(int(value) if isinstance(value, bool) else value)


def _integer(value: Any) -> int:  # noqa: ANN401 - JSON
    number = int(float(value)) if not isinstance(value, int | list | dict) else value
    if not isinstance(number, int) or not -INT64 <= number < INT64:
        raise ValueError("not a number of 64 bits")
    return number


def _year(value: Any) -> int:  # noqa: ANN401 - JSON
    """Of a year, a date, or a time in ISO 8601."""
    found = _YEAR.match(str(value))
    if not found:
        raise ValueError("no year")
    return int(found[0])


def _tag_list(name: str, value: Any, faults: Counter[str]) -> list[str]:  # noqa: ANN401 - JSON
    if isinstance(value, list | tuple):
        return [str(tag) for tag in value if tag is not None]
    text = str(value).strip()
    if text.startswith("["):
        listed = _or_fault(lambda: _literal(text), "bad_tag_list", faults)
        return [str(tag) for tag in listed or ()]
    # danbooru's own fields are tags with underscores between blanks; all others have commas.
    return text.split() if name.startswith("tag_string") else [tag for tag in text.split(",") if tag.strip()]


def _literal(text: str) -> list[Any]:
    """A list written in a string: JSON as coyo's card shows it, else Python, which v1's trainer reads."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text)
        except (SyntaxError, MemoryError, RecursionError, TypeError) as err:
            raise ValueError("neither JSON nor Python") from err
    if not isinstance(found, list):
        raise ValueError("not a list")
    return found


def _descriptions(graph: Mapping[str, Any]) -> dict[str, Any]:
    """GBC: the captions of the vertex that is the whole image, where the graph's own fields are absent."""
    vertices = graph["vertices"]
    if isinstance(vertices, str):
        vertices = json.loads(vertices)
    for vertex in vertices or ():
        if vertex.get("label") == "image":
            return {f"{desc['label']}_caption": desc["text"] for desc in vertex.get("descs") or ()}
    return {}


def columns_read(columns: Columns) -> frozenset[str]:
    """Return the names of all columns that `facts_of` looks for."""
    known = {name for names in KNOWN.values() for name in names}
    return frozenset(known | {"vertices"} | {column for column in columns.values() if column is not None})


def complete(facts: SourceFacts) -> SourceFacts:
    """Return the facts with every field of the schema."""
    return {name: facts.get(name) for name in IMAGE_FACTS.names}
