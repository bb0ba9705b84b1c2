"""Cleaning removes from captions what a parser or tokenizer interprets, and nothing else."""

import pytest

from pipeline.corpus.records.clean_captions import CaptionDrop, clean_long, clean_short


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
