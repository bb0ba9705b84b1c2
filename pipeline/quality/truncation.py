"""Text that ended because the tokens did: where its last whole sentence or tag ends."""

from __future__ import annotations

import re

from pipeline.quality.form import Form

_END = re.compile(r"[.!?…]['\"”’)\]]*(?=\s|$)")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|vs|approx|No|e\.g|i\.e|etc)|\b[A-Z]|\d)\.$")
MIN_WORDS = 3
"""Fewer are no caption, whatever they end with."""


def cut_truncated(text: str, form: Form) -> str | None:
    """Return the text up to its last whole sentence or tag; None when nothing whole is left.

    The last part is taken for broken even if it looks whole: nothing shows that it is.
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
