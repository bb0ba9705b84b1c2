"""Captions as training text takes them: one line or paragraphs, nothing that a parser or a tokenizer reads as its own.

A caption is mended where nothing is lost and refused where its text is broken: loops, refusals and marks of a chat
template are found by the rules of `pipeline.quality`.
"""

from __future__ import annotations

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
    """Why a caption is in no record."""

    EMPTY = "empty"
    MARK = "mark"
    """It holds `<|...|>`, `<s>` or another mark that tokenizers read as their own."""
    REFUSAL = "refusal"
    LOOP = "loop"


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption or the reason why there is none."""

    text: str | None
    drop: CaptionDrop | None = None


_LINE_END = re.compile(r"\r\n?|[\u2028\u2029\x0b\x0c\x85]")
_NOT_PRINTED = re.compile(r"[\x00-\x09\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]+")
_PREFIX = re.compile(r"\A(?:The|This) image (?:is|depicts|features) ")
"""What v1's trainer takes off Pixtral's captions; the rest begins with a capital again."""
_MARKDOWN = re.compile(r"\*\*|__|`+|^[ ]*(?:#{1,6}|[-*•>]|\d{1,2}[.)]) +", re.MULTILINE)
_MARK = re.compile(r"<\|.*?\|>")
_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSERS = "\"'”’»)]』」）"


def clean_short(text: str | None) -> Caption:
    """Return a caption of one line."""
    return _clean(text, joint=" ")


def clean_long(text: str | None) -> Caption:
    """Return paragraphs of a line each, joined by one line end.

    Only the first of them may hold a colon: readers of TIPO text take a later line with one for a field of its own.
    Such a paragraph goes on the line before it.
    """
    return _clean(text, joint="\n")


def _clean(text: str | None, *, joint: str) -> Caption:
    if text is None or not text.strip():
        return Caption(None, CaptionDrop.EMPTY)
    text = _LINE_END.sub("\n", text)
    text = _NOT_PRINTED.sub(" ", text)
    if _MARK.search(text) or find_special_tokens(text):
        return Caption(None, CaptionDrop.MARK)
    if find_refusal(text):
        return Caption(None, CaptionDrop.REFUSAL)
    if find_loop(words_of(text), text, tags=False):
        return Caption(None, CaptionDrop.LOOP)
    text = _MARKDOWN.sub("", text).replace("_", " ")
    text = joint.join(" ".join(line.split()) for line in text.split("\n") if line.strip())
    text = _whole(_without_prefix(text))
    text = _colons_joined(text) if joint == "\n" else text
    return Caption(text) if any(map(str.isalnum, text)) else Caption(None, CaptionDrop.EMPTY)


def _without_prefix(text: str) -> str:
    """Take `The image shows` and its like away where a sentence is left."""
    kept = remove_opening(text)
    if kept is None or kept == text:
        match = _PREFIX.match(text)
        kept = text[match.end() :] if match else text
    return kept[:1].upper() + kept[1:]


def _whole(text: str) -> str:
    """Cut a last sentence that does not end, where a whole one stands before it; one alone stays as it is."""
    if text.rstrip(_CLOSERS).endswith(_ENDS):
        return text
    return cut_truncated(text, Form.PROSE) or text


def _colons_joined(text: str) -> str:
    lines = text.split("\n")
    # From the last line up: a line that takes a colon on may be a later one itself.
    for at in range(len(lines) - 1, 0, -1):
        if ":" in lines[at]:
            lines[at - 1 : at + 1] = [f"{lines[at - 1]} {lines[at]}"]
    return "\n".join(lines)
