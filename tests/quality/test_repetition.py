"""Each loop rule at its line: what just is a loop, what just is none."""

import random
import re
from collections import Counter

import pytest

from pipeline.quality import repetition as rules
from pipeline.quality.repetition import words_of

START = "A red boat lies on the pebble beach below a row of white cottages while two gulls watch it. "


def run(text):
    return rules.find_run(words_of(text))


def test_ten_repeats_of_twenty_words_are_a_run():
    assert run(START + "and blue " * 10)
    assert run(START + "and blue " * 9) is None
    assert run(START + "no " * 20)
    assert run(START + "no " * 19) is None
    assert run("He says " + "no " * 14 + "and leaves the room.") is None


def test_four_repeats_of_a_longer_stretch_are_a_run():
    assert run(START + "the boat is red and old. " * 4)
    assert run(START + "the boat is red and old. " * 3) is None
    assert run(START + "the boat is red and old and quite small. " * 3) is None


def test_three_words_ten_times_and_a_fifth_of_the_text_are_a_loop():
    other = [f"w{n} x{n} " for n in range(40)]
    looped = "".join(f"of the boat {item}" for item in other[:10])
    assert run(looped).check == "repeated_words"
    assert run("".join(f"of the boat {item}" for item in other[:9])) is None
    assert run("".join(f"of the boat {item}" for item in [*other[:8], other[7]])) is None
    assert run(looped + "".join(other[10:20])) is None


def test_a_period_is_found_although_a_word_returns_inside_it():
    assert run("the cat sees the dog and the cat flees. " * 4).check == "repeated_run"


def test_a_sentence_is_a_loop_when_it_is_half_of_the_text():
    others = [f"Then line {n} says quite another thing" for n in range(9)]
    looped = ". ".join(f"{item}. The sea is calm tonight" for item in others[:5])

    def find(text):
        return rules.find_repeated_sentence(words_of(text), text)

    assert find(looped) is None
    assert find(f"{looped}. The sea is calm tonight. The sea is calm tonight. The sea is calm tonight")
    assert find("The sea is calm. " * 5)
    assert find("The sea is calm. " * 4) is None
    assert find("So calm now. " * 5) is None


def test_few_words_are_a_loop_only_in_long_text():
    few = [f"word{letter}" for letter in "abcdefghij"]
    assert rules.find_duplicate_words(few * 15)
    assert rules.find_duplicate_words(few * 14) is None
    assert rules.find_duplicate_words([f"word{n}" for n in range(100)] * 2) is None


@pytest.mark.parametrize(("copies", "result"), [(6, True), (5, False)])
def test_six_copies_of_a_tag_are_a_loop(copies, result):
    tags = [f"tag{letter}" for letter in "abcdefgh"]
    assert bool(rules.find_repeated_tag(", ".join(tags + ["loop"] * copies))) is result


def test_a_cycle_of_tags_is_a_loop():
    tags = [f"tag{letter}" for letter in "abcdefghijkl"]
    assert rules.find_repeated_tag(", ".join(tags + tags[2:]))
    assert rules.find_repeated_tag(", ".join(tags + tags[3:])) is None


def test_one_word_with_everything_is_a_flood():
    things = [f"thing{a}{b}" for a in "abcde" for b in "abcde"]
    assert "first word" in rules.find_repeated_tag(", ".join(f"blue_{item}" for item in things)).detail
    assert "last word" in rules.find_repeated_tag(", ".join(f"{item} hair" for item in things)).detail
    mixed = [f"blue_{item}" for item in things[:20]] + things[:14]
    assert rules.find_repeated_tag(", ".join(mixed)) is None


@pytest.mark.parametrize(("numbers", "result"), [(15, True), (14, False)])
def test_fifteen_numbers_of_one_stem_are_a_loop(numbers, result):
    for stem in ("flower_", "tag "):
        text = ", ".join(f"{stem}{n}" for n in range(numbers + 1, 1, -1)) + ", from 10 to 24 in 2019 and 2020"
        assert bool(rules.find_numbered_suffixes(words_of(text), text, tags=True)) is result
    listed = ", ".join(str(n) for n in range(40))
    assert rules.find_numbered_suffixes(words_of(listed), listed, tags=True) is None


def test_an_endless_word_is_a_loop_and_a_link_is_none():
    assert rules.find_endless_token(START + "ha" * 40)
    assert rules.find_endless_token(START + "ha" * 39) is None
    link = "https://example.org/photos/2019/07/14/harbor-at-dawn?size=large&format=webp&signature=Zk3x9QpLw7"
    assert rules.find_endless_token(START + link) is None


def test_one_long_word_of_many_parts_is_no_loop():
    things = ["hair", "eyes", "dress", "ribbon", "shoes", "sky", "flower", "hat", "gloves", "bow", "socks", "cape"]
    assert rules.find_endless_token(START + "|".join(f"blue_{thing}" for thing in things)) is None


def test_endless_signs_are_a_loop_and_a_ruler_is_none():
    assert rules.find_signs(START + "?" * 24)
    assert rules.find_signs(START + "? " * 24)
    assert rules.find_signs(START + "?" * 23) is None
    assert rules.find_signs(START + "-" * 99) is None
    assert rules.find_signs(START + "." * 100)


# fmt: off
PIECES = (
    "no ", "no ", "ha", "ha" * 42, "x-" * 42, "the boat ", "of the boat ", "is red. ", "The sea is calm. ", "w1 ",
    "w22 ", "and blue ", "x", "flower_3, ", "flower 4 ", "? ", "?", "-", "=", "... ", "\n", "\t", "é", "’", "_",
    "Ünder ", "\x1f", "\u3000", "7",
)
# fmt: on
WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrst"]


def looped_texts(num):
    """Yield texts of few pieces, some of which are repeated up to 30 times: about a third are loops."""
    rng = random.Random(4)
    for _ in range(num):
        parts = rng.choices(PIECES, k=rng.randrange(1, 9))
        repeated = "".join(parts[: rng.randrange(1, 5)]) * rng.choice((1, 2, 3, 4, 5, 6, 9, 10, 12, 25, 30))
        num_fresh = rng.choice((0, 5, 40, 120, 300))
        fresh = "".join(f"w{number}{rng.choice((' ', '. ', ', '))}" for number in range(num_fresh))
        if rng.random() < 0.2:  # the same words, and others between them
            times = rng.randrange(7, 14)
            others = (" ".join(rng.choices(WORDS, k=rng.randrange(4))) for _ in range(times))
            repeated += " ".join(f"of the boat {words}" for words in others)
        if rng.random() < 0.1:
            repeated += " ".join(rng.choices(WORDS, k=rng.randrange(120, 260)))
        at = rng.randrange(len(fresh) + 1)
        text = f"{''.join(parts)}{fresh[:at]}{repeated}{fresh[at:]}"
        yield text.encode("ascii", "ignore").decode() if rng.random() < 0.5 else text


def test_the_cheap_tests_let_every_loop_through():
    found = Counter()
    for text in looped_texts(6000):
        words = re.findall(r"\w+", text.lower())
        assert words_of(text) == words
        for tags in (False, True):
            plain = (
                rules.find_run(words)
                or rules.find_repeated_sentence(words, text)
                or rules.find_duplicate_words(words)
                or (tags and rules.find_repeated_tag(text))
                or rules.find_numbered_suffixes(words, text, tags=tags)
                or rules.find_endless_token(text)
                or rules.find_signs(text)
            ) or None
            assert rules.find_loop(words, text, tags=tags) == plain
            found[plain.check if plain else "none"] += 1
        assert (rules.find_signs(text) is None) is not any(map(is_endless, rules._SIGNS.finditer(text)))
        long_token = max(map(len, text.split()), default=0) >= rules.TOKEN_LETTERS
        assert rules._has_long_token(text) is long_token
    assert all(found[name] > 10 for name in LOOPS), found


LOOPS = (
    *("none", "repeated_run", "repeated_words", "repeated_sentence", "few_words", "repeated_tag", "numbered_suffixes"),
    *("endless_token", "endless_signs"),
)


def is_endless(match):
    return match[1] not in "-_=*." or match[0].count(match[1]) >= rules.RULER
