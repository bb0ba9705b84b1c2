"""Cleaning removes from captions what a parser or tokenizer interprets, and nothing else."""

import hashlib
import random
import re

import pytest

from pipeline.corpus.records.clean_captions import CaptionDrop, clean_long, clean_short
from pipeline.corpus.tables.identity import fingerprint, normal_url
from tests.corpus.test_hostile import PIECES


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A cat.\r\n\r\nA dog.", "A cat.\nA dog."),
        ("A cat.\tA\u200bdog.\x00", "A cat. A dog."),
        ("A cat.\u2028A dog.", "A cat.\nA dog."),
        ("A cat reads: hi.\nA dog.", "A cat reads: hi.\nA dog."),
        ("A cat.\nIt says: hi.\nA dog.", "A cat. It says: hi.\nA dog."),
        ("A cat.\nA dog.\nIt says: hi.\nIt sits.", "A cat. A dog. It says: hi.\nIt sits."),
        ("The image depicts a cat.", "A cat."),
        ("The image is dark and wet.", "Dark and wet."),
        ("This image shows a cat on a mat.", "A cat on a mat."),
        ("This image shows how it feels.", "This image shows how it feels."),
        ("**A cat** sits.\n- It is red.\n2. It is wet.", "A cat sits.\nIt is red.\nIt is wet."),
        ("A long_haired cat.", "A long haired cat."),
        ("A cat sits. A dog lies on the", "A cat sits."),
        ("A cat on a mat", "A cat on a mat"),
        ('A sign says "Stop."', 'A sign says "Stop."'),
        ("A U.S. flag of 3.5 m.", "A U.S. flag of 3.5 m."),
        ("iPhone on a table.", "iPhone on a table."),
        ("The image is iPhone advertising.", "iPhone advertising."),
        ("a cat sits. a dog lies.", "a cat sits. a dog lies."),
        ("बिल्ली बैठी है। कुत्ता लेटा है।", "बिल्ली बैठी है। कुत्ता लेटा है।"),
    ],
)
def test_a_caption_is_cleaned(raw, text):
    clean = clean_long(raw)
    assert (clean.text, clean.drop) == (text, None)
    assert clean_long(clean.text).text == text


@pytest.mark.parametrize(
    ("raw", "drop"),
    [
        (None, CaptionDrop.EMPTY),
        (" \n", CaptionDrop.EMPTY),
        ("...", CaptionDrop.EMPTY),
        ("A cat <|long|>.", CaptionDrop.MARK),
        ("A cat.</s>", CaptionDrop.MARK),
        ("<s>A cat.", CaptionDrop.MARK),
        ("A cat <`s`>.", CaptionDrop.MARK),
        ("A cat <**|short|**>.", CaptionDrop.MARK),
        ("A cat <`**`s>.", CaptionDrop.MARK),
        ("A cat <|\nIt says: |>.", CaptionDrop.MARK),
        ("I'm **sorry**, but I can't help with that request.", CaptionDrop.REFUSAL),
        ("I'm sorry, but I can't help with that request.", CaptionDrop.REFUSAL),
        ("A cat sits on the mat. " * 12, CaptionDrop.LOOP),
    ],
)
def test_a_broken_caption_is_dropped_with_its_reason(raw, drop):
    assert (clean_long(raw).text, clean_long(raw).drop) == (None, drop)
    assert (clean_short(raw).text, clean_short(raw).drop) == (None, drop)


def test_a_short_caption_is_one_line():
    assert clean_short("A cat.\n\nIt says: hi.").text == "A cat. It says: hi."


def test_markdown_is_removed_until_none_is_left():
    assert clean_long("A *`*cat*`* sits.").text == "A cat sits."
    assert clean_long("**# - A cat sits.").text == "A cat sits."


def test_a_mark_in_two_lines_of_a_short_caption_drops_it():
    assert clean_short("A cat <|\nsits |>.").drop is CaptionDrop.MARK


def test_a_caption_that_needs_no_cleaning_takes_a_shorter_way_to_the_same_text():
    rng = random.Random(6)
    printed = [piece for piece in PIECES if piece.replace("\n", "").isprintable()]
    for _ in range(3000):
        text = "".join(rng.choices(printed, k=rng.randrange(30)))
        for clean in (clean_short, clean_long):
            # A sign that is not printable, at the end, leads the whole text through every expression.
            assert clean(text) == clean(f"{text}\u200b") if text.strip() else clean(text).text is None


@pytest.mark.parametrize("host", ["x.org", "X.org", "x.org:80", "x.org:8080", "u:p@x.org", "[::1]", "ü.org", "x_y.org"])
@pytest.mark.parametrize("rest", ["", "/", "/a/b;c?d=e", "?", "?a=b?c", "/a b", "//b", "/a\\b", "/é?ü", "/%20?&"])
def test_a_plain_url_takes_a_shorter_way_to_the_same_key(host, rest):
    for scheme in ("http", "https"):
        url = f"{scheme}://{host}{rest}"
        # A fragment is no part of the key, and no URL with one is plain.
        assert normal_url(url) == normal_url(f"{url}#")


def test_fingerprints_of_ascii_text_are_those_of_other_text():
    for text in ("A Cat, asleep!", "__a__ b\x1fc", "...", " 3.5 m\n\n(U.S.) "):
        words = re.sub(r"[\W_]+", " ", text).strip().lower()
        expected = hashlib.blake2b(words.encode(), digest_size=16).hexdigest() if words else None
        assert fingerprint(text) == expected
    assert fingerprint("É, a cat") == fingerprint("é a CAT")
