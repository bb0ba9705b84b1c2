"""Trims captions to the limits of a length class: the first paragraph and sentence stay, others are drawn."""

from pipeline.corpus.records.clean_captions import SENTENCE_ENDS
from pipeline.corpus.text.draws import first_and_some, stream
from pipeline.corpus.text.sentences import join_sentences, split_sentences
from pipeline.corpus.text.sentences_by_library import split_by_library


def trim_short(text: str, sentences: int, seed: int, language: str | None = None) -> str:
    """Return a paragraph of at most `sentences` sentences, in their order; `language` as in `trim_long`."""
    return _trim_paragraph(text, sentences, seed, b"short", language)


def trim_long(text: str, paragraphs: int, sentences: int, seed: int, language: str | None = None) -> str:
    """Return at most `paragraphs` paragraphs, each of at most `sentences` sentences, in their order.

    Args:
        text: paragraphs of one line each.
        paragraphs: limit.
        sentences: limit for each paragraph.
        seed: of the draw.
        language: that of the text, if sentencex splits it; None: own rules do.
    """
    kept = text.split("\n")
    if len(kept) > paragraphs:
        kept = first_and_some(kept, paragraphs, stream(seed, b"paragraphs", len(kept)))
    return "\n".join(
        _trim_paragraph(line, sentences, seed, b"long%d" % index, language) for index, line in enumerate(kept)
    )


def _trim_paragraph(text: str, sentences: int, seed: int, purpose: bytes, language: str | None) -> str:
    if language is not None:
        parts = split_by_library(text, language)
        return "".join(first_and_some(parts, sentences, stream(seed, purpose, len(parts)))).rstrip()
    if sum(map(text.count, SENTENCE_ENDS)) <= sentences:  # each sentence has at least one end mark: nothing to trim
        return text
    parts = split_sentences(text)
    if len(parts) <= sentences:
        return text
    return join_sentences(first_and_some(parts, sentences, stream(seed, purpose, len(parts))))
