"""Splits paragraphs into sentences with sentencex, which knows the marks and abbreviations of about 300 languages.

Its only import. Own rules (`sentences.py`) are the default.
"""

from typing import cast


def split_by_library(text: str, language: str) -> list[str]:
    """Return the sentences of a paragraph, each with the blanks that follow it: joined they are the paragraph.

    Args:
        text: one line.
        language: ISO 639 code; for a language that it does not know, sentencex uses general rules.
    """
    # An optional extra.
    from sentencex import segment  # noqa: PLC0415  # pyright: ignore[reportMissingImports, reportAttributeAccessIssue]

    sentences = [part for part in cast("list[str]", segment(language, text)) if part]
    # A paragraph that the library would change is left whole.
    return sentences if "".join(sentences) == text else [text]
