"""Captions cut to the budget of a length class: first paragraph and first sentence stay, others are drawn."""

from __future__ import annotations

from pipeline.corpus.text.draws import first_and_some, stream
from pipeline.corpus.text.sentences import split_sentences

_ENDS = (".", "!", "?", "…", "。", "！", "？")


def trim_short(text: str, sentences: int, seed: int) -> str:
    """Return at most so many sentences of a paragraph, in their order."""
    return _trim_paragraph(text, sentences, seed, b"short")


def trim_long(text: str, paragraphs: int, sentences: int, seed: int) -> str:
    """Return at most so many paragraphs, each of at most so many sentences, in their order."""
    kept = text.split("\n")
    if len(kept) > paragraphs:
        kept = first_and_some(kept, paragraphs, stream(seed, b"paragraphs", len(kept)))
    return "\n".join(_trim_paragraph(one, sentences, seed, b"long%d" % at) for at, one in enumerate(kept))


def _trim_paragraph(text: str, sentences: int, seed: int, purpose: bytes) -> str:
    if sum(map(text.count, _ENDS)) <= sentences:  # each sentence has one at least: nothing to cut
        return text
    parts = split_sentences(text)
    if len(parts) <= sentences:
        return text
    return " ".join(first_and_some(parts, sentences, stream(seed, purpose, len(parts))))
