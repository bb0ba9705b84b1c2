"""Given words: whether a caption mentions the tags and names that its prompt had from the source row."""

import functools
from collections.abc import Sequence

from pipeline.config import Action
from pipeline.quality.repetition import words_of
from pipeline.quality.rule import CheckedText, Finding, Rule, WithinJson
from schemas.status import Reason

MAX_WORDS = 4
"""A longer item, such as an alt text, is no tag and no name: a caption need not repeat it."""
SHOWN = 5


def count_mentions(items: Sequence[str], text: str) -> tuple[int, int] | None:
    """Return how many different tags and names were given, and how many of these a text mentions; None without any.

    An item is mentioned if its words follow each other in the text, in any case; `red_hair` is two words.
    """
    names = {words for item in items if 0 < len(words := _words(item)) <= MAX_WORDS}
    if not names:
        return None
    spoken = f" {' '.join(words_of(text.replace('_', ' ')))} "
    return len(names), sum(f" {' '.join(words)} " in spoken for words in names)


@functools.lru_cache(maxsize=8192)
def _words(text: str) -> tuple[str, ...]:
    return tuple(words_of(text.replace("_", " ")))


def _check(checked: CheckedText) -> Finding | None:
    items = checked.request.given_items
    counts = count_mentions(items, checked.text)
    if counts is None or counts[1]:
        return None
    shown = ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")
    return Finding("mentions", f"none of {counts[0]} given: {shown}")


RULE = Rule(name=Reason.MENTIONS, default=Action.OFF, check=_check, within_json=WithinJson.ALL)
