"""Maps the columns of well-known data sets to the fields of `schemas.image_facts`.

The names are those of danbooru's API and of the danbooru2023 metadata, the Parquet of TIPO v1's trainer,
coyo-hd-11m-llavanext, conceptual-captions-cc12m-llavanext, GBC10M and img2dataset. A config may name other columns.
"""

import ast
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from pipeline.config.corpus_config import Columns, FactField
from pipeline.corpus.tables.tag_scores import (
    NO_RULES,
    ScoreRules,
    confident,
    most_confident,
    pairs_of,
    parallel_pairs,
)

SourceFacts = dict[str, Any]
"""A row of `schemas.image_facts.IMAGE_FACTS`; a field that is absent is null."""

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
    "language": (),
}
# fmt: on
"""Field to column names. A list field takes all columns in this order; another field the first that the row has.
`language` is read only from a column that the config names."""

LISTS = frozenset(("tags", "general", "character", "copyright", "artist", "meta", "quality"))
INTEGERS: Mapping[str, int] = {"width": 2**31, "height": 2**31, "score": 2**63, "favorites": 2**63}
"""Fields of whole numbers, and the smallest number that their type cannot hold."""
NO_TAGS = frozenset(("nan", "none", "null", "n/a"))
"""How tables write a missing value as a text; in lower case."""
_YEAR = re.compile(r"(?:19|20)\d\d")
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]+)*")
_PERSONS = re.compile(r"\d\+?(?:girl|boy|other)s?")


def facts_of(
    row: Mapping[str, Any], columns: Columns, faults: Counter[str], rules: ScoreRules = NO_RULES
) -> SourceFacts:
    """Return the facts in a row.

    Args:
        row: column to value, as JSON, Arrow or CSV give it.
        columns: the column of a field, if it is not one of `KNOWN`.
        faults: counts values that their field cannot hold, by reason; such a value becomes null.
        rules: which tags with confidences are kept.
    """
    if "vertices" in row:
        row = {**_descriptions(row), **{name: value for name, value in row.items() if value is not None}}
    facts: SourceFacts = {}
    for field, names in _columns_of(tuple(row), tuple(columns.items())):
        values = [(name, row[name]) for name in names if _known(row[name])]
        if not values:
            continue
        if field in rules.thresholds:
            facts[field] = _scored_value(field, values, row, rules, faults)
        else:
            facts[field] = _value(field, values, faults)
    return facts


@functools.lru_cache(maxsize=256)
def _columns_of(
    listed: tuple[str, ...], columns: tuple[tuple[FactField, str | None], ...]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the fields that a row with these columns may have, and for each its columns in their order."""
    named = {str(field): column for field, column in columns}
    candidates = {field: (named[field],) if field in named else names for field, names in KNOWN.items()}
    present = {field: tuple(name for name in names if name in listed) for field, names in candidates.items()}
    return tuple((field, names) for field, names in present.items() if names)


def _known(value: Any) -> bool:  # noqa: ANN401 - JSON
    # pandas writes a missing text as NaN, which differs from itself.
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _value(field: str, values: list[tuple[str, Any]], faults: Counter[str]) -> Any:  # noqa: ANN401 - a field
    if field in LISTS:
        tags = [tag for name, value in values for tag in _tag_list(name, value, faults)]
        return tags if "".join(tags).isascii() else list(map(_unicode, tags))
    value = values[0][1]
    read = _READ.get(field, _text)
    return _or_fault(lambda: read(value), f"bad_{field}", faults)


def _scored_value(
    field: str, values: list[tuple[str, Any]], row: Mapping[str, Any], rules: ScoreRules, faults: Counter[str]
) -> Any:  # noqa: ANN401 - a field
    """Return what `_value` does, where values may have confidences."""
    if field not in LISTS:
        pairs = pairs_of(_unpacked(values[0][1]))
        return most_confident(pairs, faults) if pairs else _value(field, values, faults)
    tags: list[str] = []
    for name, value in values:
        if field in rules.columns:
            listed = _tag_list(name, value, faults)
            pairs = parallel_pairs(listed, _unpacked(row.get(rules.columns[field])))
            if pairs is None:  # without its confidence no tag is known to reach the threshold
                faults["bad_confidences"] += 1
                continue
        else:
            pairs = pairs_of(_unpacked(value))
        kept = _tag_list(name, value, faults) if pairs is None else confident(pairs, rules.thresholds[field], faults)
        tags += map(_unicode, kept)
    return tags


def _unpacked(value: object) -> object:
    """Return the list or mapping in a text; any other value as it is."""
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] not in ("[", "{"):
        return value
    try:
        return _parsed(text)
    except ValueError:
        return value


def _or_fault(read: Callable[[], Any], reason: str, faults: Counter[str]) -> Any:  # noqa: ANN401 - a field
    try:
        return read()
    except (ValueError, OverflowError):  # infinity is no integer
        faults[reason] += 1
        return None


def _text(value: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return _unicode(", ".join(map(str, value)))
    if isinstance(value, dict):
        raise ValueError("not a text")
    return _unicode(value if isinstance(value, str) else str(int(value) if isinstance(value, bool) else value))


def _unicode(text: str) -> str:
    # JSON may escape half of a surrogate pair, which no file of text holds.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _integer(limit: int, value: Any) -> int:  # noqa: ANN401 - JSON
    number = int(float(value)) if not isinstance(value, int | list | dict) else value
    if not isinstance(number, int) or not -limit <= number < limit:
        raise ValueError("not an integer of the field's type")
    return number


def _year(value: Any) -> int:  # noqa: ANN401 - JSON
    """Read a year, a date, or a time in ISO 8601."""
    match = _YEAR.match(str(value))
    if not match:
        raise ValueError("not a year")
    return int(match[0])


def _language(value: Any) -> str:  # noqa: ANN401 - JSON
    """Read a language code; `en-US` and `zh_CN` become `en` and `zh`."""
    match = _LANGUAGE.fullmatch(str(value).strip())
    if not match:
        raise ValueError("not a language code")
    return match[1].lower()


_READ: Mapping[str, Callable[[Any], Any]] = {
    "year": _year,
    "language": _language,
    **{field: partial(_integer, limit) for field, limit in INTEGERS.items()},
}


def _tag_list(name: str, value: Any, faults: Counter[str]) -> list[str]:  # noqa: ANN401 - JSON
    text = value.strip() if isinstance(value, str) else ""
    if text.startswith("["):
        value = _or_fault(lambda: _literal(text), "bad_tag_list", faults) or ()
    elif text.startswith("{") and text.endswith("}") and _is_mapping(text):
        value = {}
    if isinstance(value, list | tuple):
        return _listed(value, faults)
    # A mapping from tag to confidence is no list of tags: without a threshold each tag of the vocabulary is one.
    if not isinstance(value, str | int) or isinstance(value, bool) or text.lower() in NO_TAGS:
        faults["bad_tag_list"] += 1
        return []
    return [tag for tag in _separated(name, str(value).strip()) if tag.strip()]


def _listed(values: Collection[Any], faults: Counter[str]) -> list[str]:
    if set(map(type, values)) == {str}:
        return list(values)
    known = [value for value in values if isinstance(value, str) or _known(value)]
    tags = [str(value) for value in known if isinstance(value, str | int) and not isinstance(value, bool)]
    if len(tags) < len(known):
        faults["bad_tag"] += len(known) - len(tags)
    return tags


def _separated(name: str, text: str) -> list[str]:
    """Split a text into tags: at commas, or at line ends, or at blanks as danbooru writes them.

    Blanks separate tags in danbooru's own fields, and where a word has an underscore (which stands for a blank within a
    tag) or counts persons, as in `1girl solo long_hair`.
    """
    words = text.split()
    if name.startswith("tag_string"):
        return words
    if "," in text:
        return text.split(",")
    lines = text.splitlines()
    if len(lines) > 1:
        return lines
    return words if "_" in text.strip("_") or any(map(_PERSONS.fullmatch, words)) else lines


def _literal(text: str) -> list[Any]:
    """Parse a list in a string: JSON, as in coyo's card, else a Python literal, which v1's trainer reads."""
    value = _parsed(text)
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(_parsed(text), dict | set)
    except ValueError:
        return False


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (SyntaxError, MemoryError, RecursionError, TypeError) as err:
            raise ValueError("neither JSON nor Python") from err


def _descriptions(graph: Mapping[str, Any]) -> dict[str, Any]:
    """GBC: return the captions of the vertex that is the whole image."""
    vertices = graph["vertices"]
    if isinstance(vertices, str):
        vertices = json.loads(vertices)
    for vertex in vertices or ():
        if vertex.get("label") == "image":
            return {f"{desc['label']}_caption": desc["text"] for desc in vertex.get("descs") or ()}
    return {}


def columns_read(columns: Columns, rules: ScoreRules = NO_RULES) -> frozenset[str]:
    """Return the names of all columns that `facts_of` may read."""
    known = {name for names in KNOWN.values() for name in names}
    return frozenset(known | {"vertices"} | columns_named(columns, rules))


def columns_named(columns: Columns, rules: ScoreRules = NO_RULES) -> frozenset[str]:
    """Return the names of the columns that a config names."""
    return frozenset({column for column in columns.values() if column is not None} | {*rules.columns.values()})
