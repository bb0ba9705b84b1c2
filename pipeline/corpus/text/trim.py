"""Trims captions to the limits of a length class: the first paragraph and sentence stay, others are drawn."""

from pipeline.corpus.records.clean_captions import SENTENCE_ENDS
from pipeline.corpus.text.draws import first_and_some, stream
from pipeline.corpus.text.sentences import join_sentences, split_sentences


def trim_short(text: str, sentences: int, seed: int) -> str:
    """Return a paragraph of at most `sentences` sentences, in their order."""
    return _trim_paragraph(text, sentences, seed, b"short")


def trim_long(text: str, paragraphs: int, sentences: int, seed: int) -> str:
    """Return at most `paragraphs` paragraphs, each of at most `sentences` sentences, in their order."""
    kept = text.split("\n")
    if len(kept) > paragraphs:
        kept = first_and_some(kept, paragraphs, stream(seed, b"paragraphs", len(kept)))
    return "\n".join(_trim_paragraph(line, sentences, seed, b"long%d" % index) for index, line in enumerate(kept))


def _trim_paragraph(text: str, sentences: int, seed: int, purpose: bytes) -> str:
    if sum(map(text.count, SENTENCE_ENDS)) <= sentences:  # each sentence has at least one end mark: nothing to trim
        return text
    parts = split_sentences(text)
    if len(parts) <= sentences:
        return text
    return join_sentences(first_and_some(parts, sentences, stream(seed, purpose, len(parts))))
