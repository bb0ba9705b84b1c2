"""Splits paragraphs into sentences. Own rules take 16 us for a paragraph of 370 characters, pySBD takes 1,040 us.

A full stop ends a sentence if a blank and then a capital, a digit or a quotation mark follow, so `3.5` and `e.g. the`
are not split. Abbreviations before a capital (`Dr. Lee`, `U.S. Army`) need a list and a rule for initials. In a
paragraph without capitals at the starts of sentences, a full stop and a blank are enough. The marks of Chinese,
Japanese, Devanagari, Urdu, Arabic, Armenian and Ethiopic texts end a sentence always.
"""

import re
from collections.abc import Sequence

_CJK_ENDS = "。！？｡"
"""No blank follows them."""
_CJK_CLOSERS = "」』”’）"
_OTHER_ENDS = r"|[。！？｡]+[」』”’）]*\s*(?=\S)|[।॥۔؟։።]+[\"'”’»)\]]*\s+(?=\S)"
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+(?=[\"'“‘«(\[¿¡]*(?:[^\Wa-zà-ÿ_]))" + _OTHER_ENDS)
_LOWER_END = re.compile(r"(?<![.…])[.!?][)\]]*\s+(?=\S)" + _OTHER_ENDS)
"""Not after an ellipsis or a quotation, as in `he waits ... then` and `"stop!" she says`."""
_CAPITAL_START = re.compile(r"[.!?…][\"'”’»)\]]*\s+[\"'“‘«(\[]*[A-ZÀ-Þ]")
# fmt: off
_ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "no", "nos", "fig", "figs", "approx", "ca", "cf",
    "al", "inc", "ltd", "co", "corp", "dept", "gen", "col", "lt", "capt", "sgt", "rev", "hon", "mt", "ft", "vol",
    "ed", "eds", "op", "pp", "e.g", "i.e", "a.m", "p.m", "ph.d",
))
# fmt: on
"""In lower case, without the last full stop. `etc` is not listed: a capital after it begins a sentence."""
_INITIALS = re.compile(r"^[\"'“‘(\[]*(?:[A-Z]\.)*[A-Z]$")
_NUMBERED = frozenset(("no", "nos", "fig", "figs", "vol", "pp", "op", "ca", "approx"))
"""Abbreviations only if a number follows: `No. 5`, but `She says no. Then she leaves.`"""
# fmt: off
_OPENERS = frozenset((
    "the", "a", "an", "it", "its", "he", "she", "they", "we", "there", "this", "that", "these", "those", "his",
    "her", "their", "in", "on", "at", "behind", "above", "below", "beside", "both", "one", "two", "several",
    "and", "but", "while", "as", "with",
))
# fmt: on
"""Words that begin a sentence and not a name: after initials (`in the U.S. The flag ...`) they mark a sentence end."""


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph with their punctuation, stripped of blanks; no sentence is empty."""
    sentences: list[str] = []
    start = 0
    lower = text.lstrip("\"'“‘([")[:1].islower() and not _CAPITAL_START.search(text)
    for match in (_LOWER_END if lower else _END).finditer(text):
        if text[match.start()] == "." and not (_ends_lower if lower else _ends)(text, start, match):
            continue
        sentences.append(text[start : match.end()].rstrip())
        start = match.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def join_sentences(sentences: Sequence[str]) -> str:
    """Return the sentences as a paragraph: with a blank between two, but none after a Chinese or Japanese mark."""
    spaced = [text if text.rstrip(_CJK_CLOSERS).endswith(tuple(_CJK_ENDS)) else f"{text} " for text in sentences[:-1]]
    return "".join([*spaced, *sentences[-1:]])


def _ends_lower(text: str, start: int, match: re.Match[str]) -> bool:
    """Return what `_ends` does, where initials are in lower case: `u.s. army`, `j. k. rowling`."""
    word = text[max(start, text.rfind(" ", start, match.start()) + 1) : match.start()].lstrip("\"'“‘([")
    initial = "." in word or (len(word) == 1 and word.isalpha())
    return _ends(text, start, match) and not initial and (word == "no" or word not in _NUMBERED)


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Return whether the full stop of a match ends a sentence, by the words before and after it."""
    if match[0].rstrip() != ".":  # `etc...` and `U.S.)` are not abbreviations within a sentence
        return True
    word = text[max(start, text.rfind(" ", start, match.start()) + 1) : match.start()]
    if _INITIALS.match(word) and word != "I":
        following = text[match.end() :].split(maxsplit=1)[0]
        return following.strip("\"'“‘([,.").lower() in _OPENERS
    bare = word.lstrip("\"'“‘([").lower()
    if bare in _NUMBERED:
        return not text[match.end()].isdigit()
    return bare not in _ABBREVIATIONS
