"""Paragraphs are split and trimmed at the ends of sentences."""

import pytest

from pipeline.corpus.text.sentences import join_sentences, split_sentences
from pipeline.corpus.text.trim import trim_long, trim_short


@pytest.mark.parametrize(
    "parts",
    [
        ["One.", "Two.", "Three"],
        ["It is 3.5 m wide.", "A U.S. Army truck stands by.", "It is green."],
        ["The flag of the U.S. is seen.", "Dr. Lee, Mr. Ray and Mrs. Kim wave."],
        ["A ship from the U.S.", "The crew waves."],
        ["J. K. Rowling signs book No. 5.", "She says no.", "Then she leaves."],
        ["Look!", "Is it him?", "It is."],
        ['"Stop!" she says.', '"Why?"', "He runs."],
        ["He waits ...", "Then he goes."],
        ["Fruits, e.g. apples, i.e. red ones, lie here.", "Vs. nothing, etc.", "The end."],
        ["Version 2.1 of foo.bar runs at 10.0.0.1 today.", "Fine."],
        ["They met at 5 p.m. Sunday and left.", "All did."],
        ["The sign (in red.)", "The wall."],
        ["赤い車。", "青い空！", "終わり"],
        ["It was I.", "The end."],
        ["एक लड़की झील के किनारे खड़ी है।", "आकाश साफ है।", "पानी शांत है॥"],
        ["ایک لڑکی جھیل کے کنارے کھڑی ہے۔", "کیا آسمان صاف ہے؟", "پانی پرسکون ہے۔"],
        ["a cat sits on a mat.", "a dog in Paris lies by it!", "both sleep."],
        [
            "a u.s. army truck of approx. five tons, e.g. a green one.",
            "it waits ... then it goes.",
            "j. k. rowling waves.",
        ],
        ['"stop!" she says.', '"why?" he asks.'],
        ["iPhones lie on a table.", "It is approx. one metre wide."],
    ],
)
def test_sentences_are_split_without_loss(parts):
    text = join_sentences(parts)
    assert split_sentences(text) == parts
    assert (" " in text) is (parts[0][0] != "赤")


def test_trimming_keeps_the_first_sentence_and_paragraph_and_the_order():
    text = "\n".join(" ".join(f"S{p}.{s} is here." for s in range(9)) for p in range(5))
    for seed in range(50):
        paragraphs = trim_long(text, 3, 4, seed).split("\n")
        assert len(paragraphs) == 3
        assert paragraphs[0].startswith("S0.0")
        assert paragraphs == sorted(paragraphs)
        for paragraph in paragraphs:
            parts = split_sentences(paragraph)
            assert len(parts) == 4
            assert parts == sorted(parts)
            assert ".0 is" in parts[0]
    assert len({trim_long(text, 3, 4, seed) for seed in range(50)}) > 40
    assert any(trim_long(text, 3, 4, seed).split("\n")[-1].startswith("S4.0") for seed in range(50))
    assert {trim_short("One. Two. Three.", 2, seed) for seed in range(50)} == {"One. Two.", "One. Three."}
    assert trim_short("One. Two.", 2, 0) == "One. Two."


def test_each_paragraph_has_its_own_draws():
    text = "\n".join(" ".join(f"S{s} is here." for s in range(9)) for _ in range(3))
    assert any(len(set(trim_long(text, 3, 4, seed).split("\n"))) > 1 for seed in range(10))


def test_trimmed_japanese_has_no_blanks_between_its_sentences():
    text = "赤い車がある。「青い空！」終わりです。白い雲。"
    trimmed = {trim_long(text, 1, 2, seed) for seed in range(50)}
    assert trimmed == {"赤い車がある。「青い空！」", "赤い車がある。終わりです。", "赤い車がある。白い雲。"}


def test_trimming_cuts_captions_in_lower_case_and_in_hindi():
    assert len(split_sentences(trim_short("a cat sits. a dog lies. a bird flies. it rains.", 2, 1))) == 2
    assert len(split_sentences(trim_short("बिल्ली बैठी है। कुत्ता लेटा है। बारिश हो रही है।", 2, 1))) == 2
