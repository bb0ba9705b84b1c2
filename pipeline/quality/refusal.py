"""Refusals: answers in which the model declines to describe the image.

They are recognised by their first words. "General questions can hit Llama refusals" (the author's README), in Llama's
own words. A caption may quote "I'm sorry" from a sign and may start with "I can't believe", so an opening counts only
with a verb of helping or describing after it.
"""

import re

from pipeline.config import Action
from pipeline.quality.rule import Finding, Rule
from schemas.status import Reason

OPENING_CHARS = 220
"""A refusal must be recognisable within these characters; Llama refuses in its first sentence."""

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
"""First words of everything that `_REFUSAL` matches. The expression runs only if the text starts with one of them."""


def find_refusal(text: str) -> Finding | None:
    """Find an answer that declines."""
    start = text[:OPENING_CHARS].replace("’", "'")
    first = start.lstrip(" \n\"'*").split(maxsplit=1)
    if not first or first[0].lower().rstrip(",.!:") not in _OPENERS:
        return None
    match = _REFUSAL.match(start)
    return Finding("refusal", repr(match[0][:80])) if match else None


RULE = Rule(name=Reason.REFUSAL, default=Action.REJECT, check=lambda checked: find_refusal(checked.text))
