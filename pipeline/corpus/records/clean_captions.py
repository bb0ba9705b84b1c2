"""Cleans captions for training text: one line or paragraphs, without markup that a parser or tokenizer interprets.

A caption is repaired if no content is lost and dropped if its text is broken. Loops, refusals and special tokens are
detected by the rules of `pipeline.quality`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from pipeline.models import Form
from pipeline.quality.openings import remove_opening
from pipeline.quality.refusal import find_refusal
from pipeline.quality.repetition import find_loop, words_of
from pipeline.quality.special_tokens import find_special_tokens
from pipeline.quality.truncation import cut_truncated


class CaptionDrop(StrEnum):
    """Why a caption was dropped."""

    EMPTY = "empty"
    MARK = "mark"
    """It contains `<|...|>`, `<s>` or another special token."""
    REFUSAL = "refusal"
    LOOP = "loop"


@dataclass(frozen=True, slots=True)
class CleanCaption:
    """A clean caption, or the reason why it was dropped."""

    text: str | None
    drop: CaptionDrop | None = None


_LINE_END = re.compile(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]")
_NOT_PRINTED = re.compile(r"[\x00-\x09\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]+")
_PREFIX = re.compile(r"\A(?:The|This) image (?:is|depicts|features) ")
"""Prefix that v1's trainer removes from Pixtral's captions; the rest then begins with a capital letter."""
_MARKDOWN = re.compile(r"\*\*|__|`+|^[ ]*(?:#{1,6}|[-*•>]|\d{1,2}[.)]) +", re.MULTILINE)
_LINE_MARKS = frozenset("#-*•>")
_MARK = re.compile(r"<\|.*?\|>")
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "｡", "।", "॥", "۔", "؟", "։", "።")
_CLOSERS = "\"'”’»)]』」）"


def clean_short(text: str | None) -> CleanCaption:
    """Return a caption of one line."""
    return _clean(text, joint=" ")


def clean_long(text: str | None) -> CleanCaption:
    """Return paragraphs of one line each, joined by one line end.

    Only the first line may contain a colon: parsers of TIPO text read a later line with a colon as a new field. Such a
    paragraph is appended to the line before it.
    """
    return _clean(text, joint="\n")


def _clean(text: str | None, *, joint: str) -> CleanCaption:
    if text is None or not text.strip():
        return CleanCaption(None, CaptionDrop.EMPTY)
    # What `_LINE_END` and `_NOT_PRINTED` match is not printable, and neither is a blank of another kind.
    plain = text.replace("\n", " ").isprintable()
    if not plain:
        text = _NOT_PRINTED.sub(" ", _LINE_END.sub("\n", text))
    raw, text = text, _without_markdown(text)
    # A mark may be in the raw text only (`<|a\nb|>`) or appear without the markdown (`` <`s`> ``).
    if _has_mark(raw) or (text != raw and _has_mark(text)):
        return CleanCaption(None, CaptionDrop.MARK)
    if find_refusal(text):
        return CleanCaption(None, CaptionDrop.REFUSAL)
    if find_loop(words_of(text), text, tags=False):
        return CleanCaption(None, CaptionDrop.LOOP)
    text = text.replace("_", " ")
    if plain and "  " not in text:
        text = joint.join(filter(None, map(str.strip, text.split("\n"))))
    else:
        text = joint.join(" ".join(line.split()) for line in text.split("\n") if line.strip())
    text = _whole(_without_prefix(text))
    text = _colons_joined(text) if joint == "\n" else text
    if "<|" in text and _MARK.search(text):  # of two lines that were joined
        return CleanCaption(None, CaptionDrop.MARK)
    return CleanCaption(text) if any(map(str.isalnum, text)) else CleanCaption(None, CaptionDrop.EMPTY)


def _has_mark(text: str) -> bool:
    return bool(("<|" in text and _MARK.search(text)) or find_special_tokens(text))


def _without_markdown(text: str) -> str:
    """Remove markdown until none is left: without `**`, `` `**` `` is markdown again."""
    if not ("`" in text or "**" in text or "__" in text or any(map(_may_begin_with_markdown, text.split("\n")))):
        return text
    before = None
    while text != before:
        before, text = text, _MARKDOWN.sub("", text)
    return text


def _may_begin_with_markdown(line: str) -> bool:
    first = line.lstrip(" ")[:1]
    return first in _LINE_MARKS or first.isdecimal()


def _without_prefix(text: str) -> str:
    """Remove an opening such as `The image shows` if a sentence remains, which then begins with a capital."""
    kept = remove_opening(text)
    if kept is not None and kept != text:
        return kept
    match = _PREFIX.match(text)
    if not match:
        return text
    kept = text[match.end() :]
    first_word = kept.partition(" ")[0]
    # A name such as `iPhone` keeps its form.
    return kept[:1].upper() + kept[1:] if first_word == first_word.lower() else kept


def _whole(text: str) -> str:
    """Remove an unfinished last sentence if a complete one precedes it; a single sentence is kept."""
    if text.rstrip(_CLOSERS).endswith(SENTENCE_ENDS):
        return text
    return cut_truncated(text, Form.PROSE) or text


def _colons_joined(text: str) -> str:
    if ":" not in text:
        return text
    lines = text.split("\n")
    # From the last line up: a line that receives a colon may itself be a later line.
    for at in range(len(lines) - 1, 0, -1):
        if ":" in lines[at]:
            lines[at - 1 : at + 1] = [f"{lines[at - 1]} {lines[at]}"]
    return "\n".join(lines)
