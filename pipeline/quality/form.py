"""Prose or tags: what each mode asks for, and what a text is.

Prose is told by its function words. Of the clean texts of `tests.quality.labelled` prose has 0.17 to 0.55
of them (lists and tables in prose down to 0.04), tag lists at most 0.15: what is in between, and what is
short, is taken for neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from pipeline.quality.finding import Finding
from schemas.status import Reason


class Form(StrEnum):
    """What a mode asks for."""

    PROSE = "prose"
    TAGS = "tags"
    PROMPT = "prompt"
    """For an image model: phrases, tags or sentences."""
    ANY = "any"


FORMS: dict[str, Form] = {
    "descriptive": Form.PROSE,
    "straightforward": Form.PROSE,
    "art-critic": Form.PROSE,
    "product-listing": Form.PROSE,
    "social-media": Form.PROSE,
    "booru-tags": Form.TAGS,
    "booru-like-tags": Form.TAGS,
    "danbooru-tags": Form.TAGS,
    "e621-tags": Form.TAGS,
    "rule34-tags": Form.TAGS,
    "training-prompt": Form.PROMPT,
    "midjourney": Form.PROMPT,
    "stable-diffusion-prompt": Form.PROMPT,
    "custom": Form.ANY,
}

# fmt: off
FUNCTION_WORDS = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "is", "are", "was", "were", "be", "been", "has", "have",
    "had", "of", "in", "on", "at", "with", "by", "for", "from", "to", "into", "and", "or", "but", "as", "it", "its",
    "his", "her", "their", "he", "she", "they", "there", "which", "who", "while", "against",
))
# fmt: on
PROSE_SHARE = 0.25
"""Of function words, at least, in prose where tags were asked."""
TAGS_SHARE = 0.12
"""At most, in tags where prose was asked."""
MIN_WORDS = 8
MIN_TAGS = 6
MAX_WORDS_PER_TAG = 4.0

_SENTENCE_END = re.compile(r"[.!?]['\"”’)]*(?:\s|$)")


def form_of(mode: str) -> Form:
    """Return what a mode asks for; a mode that is not known here may answer in any form."""
    return FORMS.get(mode, Form.ANY)


def split_tags(text: str) -> list[str]:
    """Return the parts between commas and line ends, empty ones left out; `;d` is a tag."""
    return [tag for tag in map(str.strip, text.replace("\n", ",").split(",")) if tag]


def function_share(words: Sequence[str]) -> float:
    """Return the share of function words, 0 without words."""
    return sum(map(FUNCTION_WORDS.__contains__, words)) / max(1, len(words))


def is_prose(words: Sequence[str], text: str) -> bool:
    """Tell text that is certainly no tag list.

    Args:
        words: the text's words, lower case.
        text: the text.
    """
    if len(words) < MIN_WORDS:
        return False
    if function_share(words) < PROSE_SHARE:
        return False
    return len(words) > MAX_WORDS_PER_TAG * len(split_tags(text)) or len(_SENTENCE_END.findall(text)) >= 2


def is_tag_list(words: Sequence[str], text: str) -> bool:
    """Tell text that is certainly no prose; arguments as for `is_prose`."""
    if text.count(",") + text.count("\n") < MIN_TAGS - 1:
        return False
    tags = split_tags(text)
    if len(tags) < MIN_TAGS or len(words) > MAX_WORDS_PER_TAG * len(tags):
        return False
    return function_share(words) <= TAGS_SHARE and len(_SENTENCE_END.findall(text)) <= 1


def find_wrong_form(form: Form, words: Sequence[str], text: str) -> Finding | None:
    """Find prose where tags were asked, and tags where prose was asked."""
    if form is Form.TAGS and is_prose(words, text):
        return Finding(Reason.WRONG_FORM, "wrong_form", "sentences where a list of tags was asked")
    if form is Form.PROSE and is_tag_list(words, text):
        return Finding(Reason.WRONG_FORM, "wrong_form", "a list of tags where prose was asked")
    return None
