"""Tag lists: categories, word separators, duplicates, and tags that are not in a vocabulary.

Prompts of beta-one request `artist:`, `copyright:`, `character:`, `species:`, `meta:` and `lore:` before the general
tags. Only these prefixes count, so `:d` and `re:zero` stay tags.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Categories, QualityConfig, TagsConfig, Underscores
from pipeline.errors import ConfigError
from pipeline.models import Form, form_of
from pipeline.quality.form import split_tags

CATEGORIES = ("artist", "copyright", "character", "species", "meta", "lore", "general", "rating")

_PREFIX = re.compile(rf"^({'|'.join(CATEGORIES)}):\s*(.*)$", re.IGNORECASE)
_PREFIXES = tuple(f"{category}:" for category in CATEGORIES)
_WORD = re.compile(r"[^\W\d_]{2}|\d{2}|[^\W_]\d|\d[^\W_]")
"""Separators join words: `o_o`, `^_^` and `>_<` have none."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of a list."""

    category: str | None
    name: str
    """As the model wrote it, without surrounding blanks."""


def parse_tags(text: str) -> list[Tag]:
    """Return the tags in order, with duplicates; a prefix without a name is not a tag."""
    return [tag for tag in map(_parse, split_tags(text.strip().rstrip("."))) if tag.name]


def tags_of(mode: str, text: str) -> set[str]:
    """Return the different tags of a caption, canonical, without categories; empty if the mode requests no tags."""
    return {canonical(tag.name) for tag in parse_tags(text)} if form_of(mode) is Form.TAGS else set()


def _parse(text: str) -> Tag:
    match = _PREFIX.match(text)
    return Tag(match[1].lower(), match[2].strip()) if match else Tag(None, " ".join(text.split()))


def normalize_tags(text: str, config: TagsConfig) -> str:
    """Return the list in order, each tag once, joined by `, `. Tags with the same words in any case are duplicates."""
    written: dict[str, str] = {}
    plain = not any(map(text.lower().__contains__, (*_PREFIXES, "  ", "\t")))
    if plain and config.underscores is Underscores.KEEP:
        return _without_duplicates(text)
    for tag in parse_tags(text):
        name = _joined(tag.name, config.underscores)
        prefix = f"{tag.category}:" if tag.category and config.categories is Categories.KEEP else ""
        written.setdefault(f"{prefix}{canonical(tag.name)}", f"{prefix}{name}")
    return ", ".join(written.values())


def _without_duplicates(text: str) -> str:
    """Equals `normalize_tags` for lists without categories and separators, at a tenth of its cost."""
    tags = split_tags(text.strip().rstrip("."))
    if len(set(map(str.lower, split_tags(text.replace("_", " "))))) < len(tags):
        written: dict[str, str] = {}
        for tag in tags:
            written.setdefault(canonical(tag), tag)
        tags = list(written.values())
    return ", ".join(tags)


def _joined(name: str, style: Underscores) -> str:
    if style is Underscores.KEEP or not _WORD.search(name):
        return name
    return name.replace(" ", "_") if style is Underscores.UNDERSCORES else name.replace("_", " ")


def canonical(name: str) -> str:
    """Return the form for comparisons: lower case, underscores."""
    return name.lower().replace(" ", "_")


def load_vocabulary(config: QualityConfig) -> frozenset[str] | None:
    """Return the tags of `quality.tags.vocabulary`, or None without one.

    The file has one tag a line, or one in the first field of each CSV line; `#` starts a comment. The driver reads it,
    so workers need no copy.

    Raises:
        ConfigError: the file cannot be read, or has no tag.
    """
    path = config.tags.vocabulary
    if path is None:
        return None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"quality.tags.vocabulary: {path}: cannot be read ({err}); give a UTF-8 text file") from err
    names = (line.split(",", 1)[0].strip().strip('"') for line in lines)
    tags = frozenset(canonical(name) for name in names if name and not name.startswith("#"))
    if not tags:
        raise ConfigError(f"quality.tags.vocabulary: {path}: contains no tag; write one tag a line")
    return tags


def vocabulary_digest(tags: frozenset[str] | None) -> str | None:
    """Return the hex SHA-256 of the tags, or None without a vocabulary."""
    return None if tags is None else hashlib.sha256("\n".join(sorted(tags)).encode()).hexdigest()


def unknown_tags(tags: Sequence[Tag], vocabulary: frozenset[str]) -> list[str]:
    """Return the names that are not in the vocabulary, each once."""
    return list(dict.fromkeys(tag.name for tag in tags if canonical(tag.name) not in vocabulary))
