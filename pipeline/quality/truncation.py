"""The end of the last complete sentence or tag in a text that reached `sampling.max_tokens`."""

import re

from pipeline.models import Form

_END = re.compile(r"[.!?…]['\"”’)\]]*(?=\s|$)")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|vs|approx|No|e\.g|i\.e|etc)|\b[A-Z]|\d)\.$")
MIN_WORDS = 3
"""Fewer words are not a caption."""


def cut_truncated(text: str, form: Form) -> str | None:
    """Return the text up to its last complete sentence or tag; None if nothing complete is left.

    The last part counts as incomplete even if it looks complete: nothing proves that it is.
    """
    if form is Form.TAGS or (form is Form.PROMPT and not _END.search(text)):
        whole, comma, _ = text.rpartition(",")
        kept = whole.rstrip(" ,\n") if comma else ""
        return kept or None
    ends = [match.end() for match in _END.finditer(text) if not _ABBREVIATION.search(text[: match.start() + 1])]
    if not ends:
        return None
    kept = text[: ends[-1]].rstrip()
    return kept if len(kept.split()) >= MIN_WORDS else None
