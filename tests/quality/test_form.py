"""Prose and tags are told apart by function words, and what is in between is taken for neither."""

import pytest

from pipeline.models import Form
from pipeline.quality.form import find_wrong_form
from pipeline.quality.repetition import words_of

SENTENCES = "The boat is red. It lies on the beach, and two gulls stand on it. The sky is grey."
TAGS = "1girl, solo, looking_at_viewer, blue_sky, red_dress, smile, long_hair, beach"
SPACED = "looking at viewer, hand on own hip, blue sky, red dress, long hair, smile, sitting, straw hat, white ribbon"


@pytest.mark.parametrize(
    ("form", "text", "result"),
    [
        (Form.TAGS, SENTENCES, True),
        (Form.PROSE, SENTENCES, False),
        (Form.PROMPT, SENTENCES, False),
        (Form.PROSE, TAGS, True),
        (Form.PROSE, SPACED, True),
        (Form.TAGS, SPACED, False),
        (Form.PROMPT, TAGS, False),
        (Form.ANY, TAGS, False),
        # No commas, and no sentence either.
        (Form.TAGS, "1girl solo long_hair blue_eyes smile hat beach sky sea gull boat", False),
        # Too short to tell.
        (Form.TAGS, "the boat is on the sea", False),
        (Form.PROSE, "red boat, blue sea, gulls, sky, sand", False),
        # A sentence with many commas.
        (Form.PROSE, "A red boat, a blue boat, a green boat, two gulls, a dog, a man and the sea are in view.", False),
        # Parts too long for tags.
        (Form.PROSE, ", ".join(["small red wooden fishing boats drifting slowly"] * 6), False),
    ],
)
def test_only_what_is_certainly_of_the_wrong_form_is_found(form, text, result):
    assert bool(find_wrong_form(form, words_of(text), text)) is result
