"""Answers that are about the model or the prompt and not about the image: refusals, echoes, marks of the template.

Refusals are known by how they begin: "General questions can hit Llama refusals" (the author's README),
in Llama's own words. A caption may quote "I'm sorry" from a sign and may open with "I can't believe",
so an opening counts only with a verb of helping or describing after it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from pipeline.quality.finding import Finding
from pipeline.quality.repetition import words_of
from schemas.status import Reason

OPENING_CHARS = 220
"""Where a refusal must begin to show; Llama's stand in its first sentence."""

_NOT = r"(?:can(?:no|')?t|can not|won't|will not|am (?:not able|unable)|'m (?:not able|unable)|do not|don't)"
_VERB = (
    r"(?:help|assist|provide|describe|identify|fulfil+|comply|create|generate|write|continue|discuss|engage|caption|"
    r"answer|process|view|analy[sz]e|tag|complete|produce|participate|recogni[sz]e|do (?:that|this)|"
    r"see (?:the|this|any|an|your) (?:image|picture|photo)|have the (?:ability|capability)|feel comfortable)"
)
_HOW = r"(?: (?:to|currently|directly|really|actually|accurately|legally|in good conscience))?"
_SORRY = (
    r"(?:(?:i'm|i am|we're|so) )?(?:very |truly |really )?sorry|i apologi[sz]e|my apologies|unfortunately|as an? ai\b"
)
_REFUSAL = re.compile(
    r"[\s\"'*]*(?:"
    rf"(?:{_SORRY})[^\n]{{0,80}}?\bi ?{_NOT}{_HOW} {_VERB}\b|"
    rf"i ?{_NOT}{_HOW} {_VERB}\b|"
    r"i must (?:respectfully )?decline\b|"
    r"as an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b|"
    r"(?:i'm|i am) (?:just |only )?an? (?:ai|artificial intelligence|language) (?:model|assistant|language)\b|"
    r"(?:sorry, )?(?:but )?(?:no|there is no) image (?:was |is |has been )?(?:provided|attached|uploaded)\b)",
    re.IGNORECASE,
)
_OPENERS = frozenset(("i", "i'm", "so", "sorry", "very", "my", "unfortunately", "as", "we're", "no", "there", "truly"))
"""First words of all that `_REFUSAL` matches: the expression runs only behind one of them."""

ECHO_WORDS = 8
"""Words of the prompt, from its start, that open the text; captions share two or three with prompts."""
ECHO_MIN_WORDS = 5
"""A shorter prompt counts only if it is all of the text."""

_MARKS = re.compile(
    r"<\|[a-zA-Z0-9_]{2,40}\|>|</?s>|<(?:image|unk|pad|bos|eos)>|\[/?INST\]|<</?SYS>>|\breserved_special_token_\d+"
    r"|\A\s*(?:assistant|user|system)\s*(?:\n|:\s*\n)|\n(?:assistant|user)\s*\n|\A(?:ASSISTANT|USER):",
)
_MARKERS = ("<", "[", "reserved_special_token")
_ROLES = ("assistant", "user", "system")


def find_refusal(text: str) -> Finding | None:
    """Find an answer that declines."""
    start = text[:OPENING_CHARS].replace("’", "'")
    first = start.lstrip(" \n\"'*").split(maxsplit=1)
    if not first or first[0].lower().rstrip(",.!:") not in _OPENERS:
        return None
    match = _REFUSAL.match(start)
    return Finding(Reason.REFUSAL, "refusal", repr(match[0][:80])) if match else None


def find_prompt_echo(prompt: str, words: Sequence[str]) -> Finding | None:
    """Find a text that opens with the prompt's words, or holds all of a prompt of some length.

    Args:
        prompt: as it was asked.
        words: the text's words, lower case.
    """
    asked = _words(prompt)
    opening, whole = f"{' '.join(asked[:ECHO_WORDS])} ", f" {' '.join(asked)} "
    said = f"{' '.join(words)} "
    if len(asked) < ECHO_MIN_WORDS:
        echoes = bool(asked) and said == whole[1:]
    else:
        echoes = said.startswith(opening) or whole in f" {said}"
    return Finding(Reason.PROMPT_ECHO, "prompt_echo", repr(opening[:80].strip())) if echoes else None


@functools.lru_cache(maxsize=4096)
def _words(prompt: str) -> tuple[str, ...]:
    return tuple(words_of(prompt))


def find_special_tokens(text: str) -> Finding | None:
    """Find marks of the chat template, whole or as the tokenizer spells them."""
    start = text[:12].lstrip().lower()
    if not (any(map(text.__contains__, _MARKERS)) or start.startswith(_ROLES) or "\n" in text):
        return None
    match = _MARKS.search(text)
    return Finding(Reason.SPECIAL_TOKENS, "special_tokens", repr(match[0])) if match else None
