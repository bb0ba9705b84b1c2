"""Wrong form: prose where the mode requests tags, or tags where it requests prose.

Prose is recognised by its share of function words. Among the clean texts of `tests.quality.labelled`, prose has 0.17 to
0.55 (lists and tables in prose down to 0.04) and tag lists have at most 0.15. A text in between, or a short one, counts
as neither.
"""

import re
from collections.abc import Sequence

from pipeline.config import Action
from pipeline.models import Form
from pipeline.quality.rule import Finding, Rule
from schemas.status import Reason

# fmt: off
FUNCTION_WORDS = frozenset((
    "a", "an", "the", "this", "that", "these", "those", "is", "are", "was", "were", "be", "been", "has", "have",
    "had", "of", "in", "on", "at", "with", "by", "for", "from", "to", "into", "and", "or", "but", "as", "it", "its",
    "his", "her", "their", "he", "she", "they", "there", "which", "who", "while", "against",
))
# fmt: on
PROSE_SHARE = 0.25
"""Minimum share of function words in prose where tags were requested."""
TAGS_SHARE = 0.12
"""Maximum share in tags where prose was requested."""
MIN_WORDS = 8
MIN_TAGS = 6
MAX_WORDS_PER_TAG = 4.0

_SENTENCE_END = re.compile(r"[.!?]['\"”’)]*(?:\s|$)")


def split_tags(text: str) -> list[str]:
    """Return the parts between commas and line ends without empty ones; `;d` is a tag."""
    return [tag for tag in map(str.strip, text.replace("\n", ",").split(",")) if tag]


def function_share(words: Sequence[str]) -> float:
    """Return the share of function words, 0 without words."""
    return sum(map(FUNCTION_WORDS.__contains__, words)) / max(1, len(words))


def is_prose(words: Sequence[str], text: str) -> bool:
    """Return whether a text is certainly not a tag list.

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
    """Return whether a text is certainly not prose; arguments as for `is_prose`."""
    if text.count(",") + text.count("\n") < MIN_TAGS - 1:
        return False
    tags = split_tags(text)
    if len(tags) < MIN_TAGS or len(words) > MAX_WORDS_PER_TAG * len(tags):
        return False
    return function_share(words) <= TAGS_SHARE and len(_SENTENCE_END.findall(text)) <= 1


def find_wrong_form(form: Form, words: Sequence[str], text: str) -> Finding | None:
    """Find prose where tags were requested, and tags where prose was requested."""
    if form is Form.TAGS and is_prose(words, text):
        return Finding("wrong_form", "sentences; a list of tags was requested")
    if form is Form.PROSE and is_tag_list(words, text):
        return Finding("wrong_form", "a list of tags; prose was requested")
    return None


RULE = Rule(
    name=Reason.WRONG_FORM,
    default=Action.REJECT,
    check=lambda checked: find_wrong_form(checked.form, checked.words, checked.text),
)
