"""What the public renderers need of a record: facts of their code, and the reasons why a record is left out."""

from collections.abc import Mapping, Sequence
from typing import Any

MIN_TAGS = 3
"""Of n tags the TIPO and DanTagGen renderers give at most max(3n // 5, 1) + 1; of two tags that may be both, and then
the text ends with `, ` and nothing is left to predict."""


def has_size(record: Mapping[str, Any]) -> bool:
    """Whether an aspect ratio can be computed; records hold null for sizes that are not positive."""
    return bool(record["width"] and record["height"])


def as_text(terms: Sequence[str]) -> str | None:
    """Return terms as a renderer writes them: those of a list it would show as a Python list."""
    return ", ".join(terms) or None


def dropped_for(record: Mapping[str, Any], *, needs_size: bool = True, needs_captions: bool = False) -> str:
    """Return the reason why a record is left out, for the counts; the first that applies."""
    if len(record["general"]) + len(record["special"]) < MIN_TAGS:
        return "few_tags_and_not_both_captions" if needs_captions else "few_tags"
    if needs_size and not has_size(record):
        return "no_size_and_not_both_captions" if needs_captions else "no_size"
    return "few_general_tags"
