"""Loops: text that repeats itself endlessly, as opposed to text that repeats itself on purpose.

Figures marked (author) are those of JoyCaption's glitch filter (fpgaminer/joycaption, BuildAlignmentDataset.ipynb,
cells 14 and 110). The others were set on `tests.quality.labelled`, whose clean texts contain refrains, cumulative
rhymes, dialogue, tables and long tag lists. The expensive part of a check runs only if a cheap test, which every loop
of its kind passes, shows that it may find something: all checks together take 20 us for 200 words without a loop.
"""

import operator
import re
from collections import Counter
from collections.abc import Sequence

from pipeline.config import Action
from pipeline.models import Form
from pipeline.quality.form import is_tag_list, split_tags
from pipeline.quality.rule import CheckedText, Finding, Rule, WithinJson
from schemas.status import Reason

RUN_REPEATS = 10
"""(author) Back-to-back repeats of one sequence of words."""
RUN_WORDS = 20
"""Minimum words of such a run: "no" twelve times in dialogue is no loop."""
LONG_RUN_REPEATS = 4
LONG_RUN_WORDS = 24
"""Fewer repeats of a longer sequence. Refrains at the end of four stanzas have the stanzas between them."""

RUN_DUPLICATES = 9
"""Repeated runs of three words: the minimum of all these loops, and rare in clean text."""

TRIGRAM_COUNT = 10
TRIGRAM_SHARE = 0.2
"""(author) Count of one run of three words, and its share of all runs."""

SENTENCE_COUNT = 5
SENTENCE_WORDS = 4
SENTENCE_SHARE = 0.5
"""Copies of one sentence, its words, and its share of the words: a chorus stays below the share."""

DUPLICATE_COUNT = 100
DUPLICATE_SHARE = 0.55
DUPLICATE_LETTERS = 4
"""(author) Repeated words of four letters or more."""
DUPLICATE_MIN_WORDS = 150
"""With fewer words, DUPLICATE_COUNT duplicates cannot be DUPLICATE_SHARE of all words."""

TAG_COUNT = 6
"""Copies of one tag."""
TAG_DUPLICATES = 10
TAG_DUPLICATE_SHARE = 0.3
"""Repeated tags. Correct lists have only a few, and normalising removes them."""

SUFFIXES = 15
"""(author) Numbers after one stem: `flower_1, flower_2, ...`"""
FLOOD_TAGS = 20
FLOOD_SHARE = 0.6
"""Different tags that share their first or their last word; clean lists of one colour reach 0.3."""

TOKEN_LETTERS = 80
"""(author) Minimum length of an endless word."""
TOKEN_VARIETY = 0.4
"""Share of different runs of three letters in it; a link has above 0.9, tags joined by bars 0.56."""

PUNCTUATION = 24
RULER = 100
"""Equal signs in a row. `-`, `_`, `=`, `*` and `.` draw lines in tables and posters, so they need more."""

_WORD = re.compile(r"\w+")
_SUFFIXED = re.compile(r"^(.*?[^\W\d_])[ _-]?(\d+)$")
_LONG_TOKEN = re.compile(rf"[^\s,]{{{TOKEN_LETTERS},}}")
_SIGNS = re.compile(rf"([^\w\s])(?:\s?\1){{{PUNCTUATION - 1},}}")
_RULERS = "-_=*."
_WORDS_ONLY = b"".join(
    chr(byte).lower().encode() if chr(byte).isalnum() or byte == ord("_") else b" " for byte in range(128)
) + bytes(128)
"""For `bytes.translate` of ASCII text: lower case, and blanks for what is no part of a word."""
_GAP = b" " * PUNCTUATION

PERIODIC_WORDS = 18
"""Of a run that `_find_periodic` finds, at least so many words in a row occur again one period later: the run has
LONG_RUN_WORDS and LONG_RUN_REPEATS (18 of 24), or RUN_WORDS and RUN_REPEATS (18 of 20)."""
_PERIODIC = b"\1" * PERIODIC_WORDS
SAMPLED_WORDS = 4
SAMPLED_EVERY = PERIODIC_WORDS - SAMPLED_WORDS + 1
"""So one sample of SAMPLED_WORDS lies within such a run, and occurs twice."""


def words_of(text: str) -> list[str]:
    """Return the words in lower case, without punctuation; `red_hair` is one, `don't` two."""
    if text.isascii():
        return text.encode().translate(_WORDS_ONLY).decode().split()
    return _WORD.findall(text.lower())


def find_loop(words: Sequence[str], text: str, *, tags: bool) -> Finding | None:
    """Find the first loop of any kind.

    Args:
        words: `words_of(text)`.
        text: the text.
        tags: whether the text is a comma-separated list, in which a repeated part is not dialogue.
    """
    num_repeated = len(words) - len(set(words))
    finding = None
    if _may_run(words, num_repeated):
        finding = find_run(words)
    # Copies of one sentence are half of the words, and all but one of at least SENTENCE_COUNT are repeated words.
    if not finding and num_repeated * SENTENCE_COUNT >= SENTENCE_SHARE * (SENTENCE_COUNT - 1) * len(words):
        finding = find_repeated_sentence(words, text)
    if not finding and num_repeated >= DUPLICATE_COUNT:
        finding = find_duplicate_words(words)
    if not finding and tags:
        finding = find_repeated_tag(text)
    return finding or find_numbered_suffixes(words, text, tags=tags) or find_endless_token(text) or find_signs(text)


def _may_run(words: Sequence[str], num_repeated: int) -> bool:
    """Return whether `find_run` may find something: true for everything that it finds, and for a few other texts."""
    if num_repeated < PERIODIC_WORDS:
        return False
    # A run of three different words that fills its share of the text: each of the three is repeated as often.
    least = max(TRIGRAM_COUNT - 1, int(TRIGRAM_SHARE * (len(words) - 2)))
    if num_repeated >= 3 * least:
        return True
    text = f" {' '.join(words)} "
    place = 0
    for at in range(0, len(words) - SAMPLED_WORDS + 1, SAMPLED_EVERY):
        sample = f" {' '.join(words[at : at + SAMPLED_WORDS])} "
        place = text.find(sample, place)
        again = text.find(sample, place + 1)
        if again < 0:
            continue
        if text.find(sample, again + 1) >= 0:
            return True
        # A run in which a sample occurs only twice has fewer than 2 x period + PERIODIC_WORDS words, and at least
        # LONG_RUN_REPEATS periods.
        period = text.count(" ", place, again)
        if 2 * period < PERIODIC_WORDS and _has_period(words, period):
            return True
    return False


def _has_period(words: Sequence[str], period: int) -> bool:
    """Return whether so many words in a row occur again after `period` words that it may be a run."""
    return _PERIODIC in bytes(map(operator.eq, words[period:], words))


def find_run(words: Sequence[str]) -> Finding | None:
    """Find words that are repeated back to back, and one run of three words that fills the text."""
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    if len(trigrams) - len(set(trigrams)) < RUN_DUPLICATES:
        return None
    for trigram, count in Counter(trigrams).most_common(3):
        if count < TRIGRAM_COUNT or count <= TRIGRAM_SHARE * len(trigrams):
            break
        if len(set(trigram)) == len(trigram):  # otherwise it overlaps with itself, as in dialogue
            return Finding("repeated_words", f"{' '.join(trigram)!r} occurs {count} times")
    return _find_periodic(words, trigrams)


def _find_periodic(words: Sequence[str], trigrams: Sequence[tuple[str, ...]]) -> Finding | None:
    """A loop of period p repeats runs of three words after p words: only such periods are tried."""
    last: dict[tuple[str, ...], int] = {}
    gaps: Counter[int] = Counter()
    for index, trigram in enumerate(trigrams):
        if trigram in last:
            gaps[index - last[trigram]] += 1
        last[trigram] = index
    for period, times in gaps.most_common(4):
        if times < LONG_RUN_REPEATS - 1:
            break
        if not _has_period(words, period):
            continue
        length, end = _longest_run(words, period)
        repeats = length // period
        if (repeats >= RUN_REPEATS and length >= RUN_WORDS) or (
            repeats >= LONG_RUN_REPEATS and length >= LONG_RUN_WORDS
        ):
            shown = " ".join(words[end - period : end])[:60]
            return Finding("repeated_run", f"{shown!r} {repeats} times back to back")
    return None


def _longest_run(words: Sequence[str], period: int) -> tuple[int, int]:
    """Return the length in words and the end of the longest sequence that repeats itself after `period` words."""
    best = end = current = 0
    for index, (word, before) in enumerate(zip(words[period:], words, strict=False), period + 1):
        current = current + 1 if word == before else 0
        if current > best:
            best, end = current, index
    return best + period, end


def find_repeated_sentence(words: Sequence[str], text: str) -> Finding | None:
    """Find one sentence or line whose copies are half of the text."""
    stops = text.lower().replace("!", ".").replace("?", ".").replace("\n", ".")
    parts = [part for part in map(str.strip, stops.split(".")) if part]
    if len(parts) < SENTENCE_COUNT or len(set(parts)) > len(parts) - SENTENCE_COUNT + 1:
        return None
    for sentence, count in Counter(parts).most_common(2):
        length = len(_WORD.findall(sentence))
        if count >= SENTENCE_COUNT and length >= SENTENCE_WORDS and count * length >= SENTENCE_SHARE * len(words):
            return Finding("repeated_sentence", f"{sentence[:60]!r} occurs {count} times")
    return None


def find_duplicate_words(words: Sequence[str]) -> Finding | None:
    """Find long text that consists of few different words, in any order."""
    if len(words) < DUPLICATE_MIN_WORDS:
        return None
    long = [word for word in words if len(word) >= DUPLICATE_LETTERS]
    duplicates = len(long) - len(set(long))
    if duplicates < DUPLICATE_COUNT or duplicates <= DUPLICATE_SHARE * len(long):
        return None
    return Finding(
        "few_words", f"{duplicates} of {len(long)} words of {DUPLICATE_LETTERS} letters or more are repeated"
    )


def find_repeated_tag(text: str) -> Finding | None:
    """Find a tag list that repeats its tags, or the same word in all tags."""
    tags = split_tags(text.lower())
    duplicates = len(tags) - len(set(tags))
    if duplicates >= TAG_COUNT - 1:
        [(tag, count)] = Counter(tags).most_common(1)
        if count >= TAG_COUNT:
            return Finding("repeated_tag", f"{tag[:60]!r} occurs {count} times")
        if duplicates >= TAG_DUPLICATES and duplicates > TAG_DUPLICATE_SHARE * len(tags):
            return Finding("repeated_tag", f"{duplicates} of {len(tags)} tags are repeated")
    if len(tags) < FLOOD_TAGS:
        return None
    split = [tag.split() for tag in set(split_tags(text.lower().replace("_", " ")))]
    several = [parts for parts in split if len(parts) > 1]
    for place, name in ((0, "first"), (-1, "last")):
        for word, count in Counter(parts[place] for parts in several).most_common(1):
            if count >= FLOOD_TAGS and count > FLOOD_SHARE * len(tags):
                return Finding("tag_flood", f"{count} of {len(tags)} tags have {word[:60]!r} as their {name} word")
    return None


def find_numbered_suffixes(words: Sequence[str], text: str, *, tags: bool) -> Finding | None:
    """Find one name with ascending numbers. The numbers of a list (`1. ... 2. ...`) have no name before them."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) - len(data.translate(None, b"0123456789")) < SUFFIXES:
        return None
    stems: Counter[str] = Counter()
    for name in set(split_tags(text.lower()) if tags else words):
        match = _SUFFIXED.match(name)
        if match:
            stems[match[1]] += 1
    for stem, count in stems.most_common(1):
        if count >= SUFFIXES:
            return Finding("numbered_suffixes", f"{stem[:60]!r} with {count} numbers")
    return None


def find_endless_token(text: str) -> Finding | None:
    """Find one endless word, such as `hahaha...`."""
    if not _has_long_token(text):
        return None
    for match in _LONG_TOKEN.finditer(text):
        token = match[0].lower()
        variety = len({token[at : at + 3] for at in range(len(token) - 2)}) / (len(token) - 2)
        if variety < TOKEN_VARIETY and not set(token) <= set(_RULERS):
            return Finding("endless_token", f"{token[:20]!r}... has {len(token)} letters")
    return None


def _has_long_token(text: str) -> bool:
    """Return false if a blank follows within TOKEN_LETTERS after each blank, so that no word can be so long."""
    start = 0
    while len(text) - start >= TOKEN_LETTERS:
        blank = text.rfind(" ", start, start + TOKEN_LETTERS)
        if blank < 0:
            return max(map(len, text.split()), default=0) >= TOKEN_LETTERS
        start = blank + 1
    return False


def find_signs(text: str) -> Finding | None:
    """Find one sign that is repeated endlessly, such as `?????...`."""
    if text.isascii() and _GAP not in text.encode().translate(_WORDS_ONLY):
        return None
    for match in _SIGNS.finditer(text):
        count = match[0].count(match[1])
        if match[1] not in _RULERS or count >= RULER:
            return Finding("endless_signs", f"{match[1]!r} {count} times in a row")
    return None


def _check(checked: CheckedText) -> Finding | None:
    tags = checked.form is Form.TAGS or (checked.form is not Form.PROSE and is_tag_list(checked.words, checked.text))
    return find_loop(checked.words, checked.text, tags=tags)


RULE = Rule(name=Reason.LOOP, default=Action.REJECT, check=_check, within_json=WithinJson.EACH)
