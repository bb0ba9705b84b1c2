"""Text that repeats itself without end, told from text that repeats itself on purpose.

Figures marked (author) are those of JoyCaption's own glitch filter (fpgaminer/joycaption,
BuildAlignmentDataset.ipynb, cells 14 and 110); the others were set on `tests.quality.labelled`, whose
clean texts hold refrains, cumulative rhymes, dialogue, tables and long tag lists. Each rule alone
costs at most some 70 us for 250 words: what is dear runs only where a cheap count says that it may find.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pipeline.quality.finding import Finding
from pipeline.quality.form import split_tags
from schemas.status import Reason

RUN_REPEATS = 10
"""(author) Back-to-back repeats of one stretch of words."""
RUN_WORDS = 20
"""Words of such a run: "no" twelve times over in dialogue is no loop."""
LONG_RUN_REPEATS = 4
LONG_RUN_WORDS = 24
"""Fewer repeats of a longer stretch. Refrains that close four stanzas have the stanzas between them."""

RUN_DUPLICATES = 9
"""Runs of three words that stood before: the least that any of these loops leaves, and seldom in clean text."""

TRIGRAM_COUNT = 10
TRIGRAM_SHARE = 0.2
"""(author) One run of three words so often, and so much of all of them."""

SENTENCE_COUNT = 5
SENTENCE_WORDS = 4
SENTENCE_SHARE = 0.5
"""Copies of one sentence, its words, and its share of the words: a chorus stays below the share."""

DUPLICATE_COUNT = 100
DUPLICATE_SHARE = 0.55
DUPLICATE_LETTERS = 4
"""(author) Words of four letters or more that stood before."""
DUPLICATE_MIN_WORDS = 150
"""Below it there cannot be DUPLICATE_COUNT duplicates that are DUPLICATE_SHARE of all words."""

TAG_COUNT = 6
"""Copies of one tag."""
TAG_DUPLICATES = 10
TAG_DUPLICATE_SHARE = 0.3
"""Tags that stood before. Honest doubles are a few: normalising takes them out."""

SUFFIXES = 15
"""(author) Numbers after one stem: `flower_1, flower_2, ...`"""
FLOOD_TAGS = 20
FLOOD_SHARE = 0.6
"""Different tags that share their first or their last word; clean lists of one colour reach 0.3."""

TOKEN_LETTERS = 80
"""(author) Length of one endless word."""
TOKEN_VARIETY = 0.4
"""Different runs of three letters in it, as a share; a link has above 0.9, tags joined by bars 0.56."""

PUNCTUATION = 24
RULER = 100
"""Equal signs in a row; `-`, `_`, `=`, `*` and `.` draw lines in tables and posters."""

_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"[.!?\n]+")
_SUFFIXED = re.compile(r"^(.*?[^\W\d_])[ _-]?(\d+)$")
_LONG_TOKEN = re.compile(rf"[^\s,]{{{TOKEN_LETTERS},}}")
_SIGNS = re.compile(rf"([^\w\s])(?:\s?\1){{{PUNCTUATION - 1},}}")
_RULERS = "-_=*."


def words_of(text: str) -> list[str]:
    """Return the words in lower case, without punctuation; `red_hair` is one, `don't` two."""
    return _WORD.findall(text.lower())


def find_loop(words: Sequence[str], text: str, *, tags: bool) -> Finding | None:
    """Find the first loop, whatever its kind.

    Args:
        words: `words_of(text)`.
        text: the text.
        tags: whether the text is a list between commas, where a repeated part is no dialogue.
    """
    found = find_run(words) or find_repeated_sentence(words, text) or find_duplicate_words(words)
    if not found and tags:
        found = find_repeated_tag(text)
    return found or find_numbered_suffixes(words, text, tags=tags) or find_endless_token(text) or find_signs(text)


def _loop(rule: str, detail: str) -> Finding:
    return Finding(Reason.LOOP, rule, detail)


def find_run(words: Sequence[str]) -> Finding | None:
    """Find words repeated back to back, and one run of three words that fills the text."""
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if len(trigrams) - len(set(trigrams)) < RUN_DUPLICATES:
        return None
    for trigram, count in Counter(trigrams).most_common(3):
        if count < TRIGRAM_COUNT or count <= TRIGRAM_SHARE * len(trigrams):
            break
        if len(set(trigram)) == len(trigram):  # else it overlaps with itself, as in dialogue: for the runs below
            return _loop("repeated_words", f"{' '.join(trigram)!r} stands there {count} times")
    return _find_periodic(words, trigrams)


def _find_periodic(words: Sequence[str], trigrams: Sequence[tuple[str, ...]]) -> Finding | None:
    """Any loop of period p shows as runs of three words that return after p: only those periods are tried."""
    last: dict[tuple[str, ...], int] = {}
    gaps: Counter[int] = Counter()
    for index, trigram in enumerate(trigrams):
        if trigram in last:
            gaps[index - last[trigram]] += 1
        last[trigram] = index
    for period, times in gaps.most_common(4):
        if times < LONG_RUN_REPEATS - 1:
            break
        length, end = _longest_run(words, period)
        repeats = length // period
        if (repeats >= RUN_REPEATS and length >= RUN_WORDS) or (
            repeats >= LONG_RUN_REPEATS and length >= LONG_RUN_WORDS
        ):
            shown = " ".join(words[end - period : end])[:60]
            return _loop("repeated_run", f"{shown!r} {repeats} times back to back")
    return None


def _longest_run(words: Sequence[str], period: int) -> tuple[int, int]:
    """Return the length in words and the end of the longest stretch that repeats itself after `period` words."""
    best = end = current = 0
    for index, (word, before) in enumerate(zip(words[period:], words, strict=False), period + 1):
        current = current + 1 if word == before else 0
        if current > best:
            best, end = current, index
    return best + period, end


def find_repeated_sentence(words: Sequence[str], text: str) -> Finding | None:
    """Find one sentence, or one line, that returns until it is half of the text."""
    parts = [part for part in map(str.strip, _SENTENCE.split(text.lower())) if part]
    if len(parts) < SENTENCE_COUNT or len(set(parts)) > len(parts) - SENTENCE_COUNT + 1:
        return None
    for sentence, count in Counter(parts).most_common(2):
        length = len(_WORD.findall(sentence))
        if count >= SENTENCE_COUNT and length >= SENTENCE_WORDS and count * length >= SENTENCE_SHARE * len(words):
            return _loop("repeated_sentence", f"{sentence[:60]!r} stands there {count} times")
    return None


def find_duplicate_words(words: Sequence[str]) -> Finding | None:
    """Find long text that goes round in few words, in whatever order."""
    if len(words) < DUPLICATE_MIN_WORDS:
        return None
    long = [word for word in words if len(word) >= DUPLICATE_LETTERS]
    duplicates = len(long) - len(set(long))
    if duplicates < DUPLICATE_COUNT or duplicates <= DUPLICATE_SHARE * len(long):
        return None
    return _loop("few_words", f"{duplicates} of {len(long)} words of {DUPLICATE_LETTERS} letters or more stood before")


def find_repeated_tag(text: str) -> Finding | None:
    """Find a tag list that goes on with what it has said, or with ever the same word."""
    tags = split_tags(text.lower())
    duplicates = len(tags) - len(set(tags))
    if duplicates >= TAG_COUNT - 1:
        [(tag, count)] = Counter(tags).most_common(1)
        if count >= TAG_COUNT:
            return _loop("repeated_tag", f"{tag[:60]!r} stands there {count} times")
        if duplicates >= TAG_DUPLICATES and duplicates > TAG_DUPLICATE_SHARE * len(tags):
            return _loop("repeated_tag", f"{duplicates} of {len(tags)} tags stood before")
    if len(tags) < FLOOD_TAGS:
        return None
    split = [tag.split() for tag in set(split_tags(text.lower().replace("_", " ")))]
    several = [parts for parts in split if len(parts) > 1]
    for place, name in ((0, "first"), (-1, "last")):
        for word, count in Counter(parts[place] for parts in several).most_common(1):
            if count >= FLOOD_TAGS and count > FLOOD_SHARE * len(tags):
                return _loop("tag_flood", f"{count} of {len(tags)} tags have {word[:60]!r} as their {name} word")
    return None


def find_numbered_suffixes(words: Sequence[str], text: str, *, tags: bool) -> Finding | None:
    """Find one name counted up. Numbers of a list (`1. ... 2. ...`) have no name before them."""
    if sum(map(text.count, "0123456789")) < SUFFIXES:
        return None
    stems: Counter[str] = Counter()
    for name in set(split_tags(text.lower()) if tags else words):
        match = _SUFFIXED.match(name)
        if match:
            stems[match[1]] += 1
    for stem, count in stems.most_common(1):
        if count >= SUFFIXES:
            return _loop("numbered_suffixes", f"{stem[:60]!r} with {count} numbers")
    return None


def find_endless_token(text: str) -> Finding | None:
    """Find one word that never ends, such as `hahaha...`."""
    if max(map(len, text.split()), default=0) < TOKEN_LETTERS:
        return None
    for match in _LONG_TOKEN.finditer(text):
        token = match[0].lower()
        variety = len({token[at : at + 3] for at in range(len(token) - 2)}) / (len(token) - 2)
        if variety < TOKEN_VARIETY and not set(token) <= set(_RULERS):
            return _loop("endless_token", f"{token[:20]!r}... has {len(token)} letters")
    return None


def find_signs(text: str) -> Finding | None:
    """Find one sign without end, such as `?????...`."""
    for match in _SIGNS.finditer(text):
        count = match[0].count(match[1])
        if match[1] not in _RULERS or count >= RULER:
            return _loop("endless_signs", f"{match[1]!r} {count} times in a row")
    return None
