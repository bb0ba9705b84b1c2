"""Prompt echoes: texts that repeat the prompt instead of describing the image."""

import functools
from collections.abc import Sequence

from pipeline.config import Action
from pipeline.quality.repetition import words_of
from pipeline.quality.rule import Finding, Rule
from schemas.status import Reason

ECHO_WORDS = 8
"""First words of the prompt that the text starts with; captions share two or three with prompts."""
ECHO_MIN_WORDS = 5
"""A shorter prompt counts only if it is the whole text."""


def find_prompt_echo(prompt: str, words: Sequence[str]) -> Finding | None:
    """Find a text that starts with the words of the prompt, or contains all of a prompt of some length.

    Args:
        prompt: the prompt of the request.
        words: the words of the text, lower case.
    """
    prompted = _words(prompt)
    opening, whole = f"{' '.join(prompted[:ECHO_WORDS])} ", f" {' '.join(prompted)} "
    spoken = f"{' '.join(words)} "
    if len(prompted) < ECHO_MIN_WORDS:
        echoes = bool(prompted) and spoken == whole[1:]
    else:
        echoes = spoken.startswith(opening) or whole in f" {spoken}"
    return Finding("prompt_echo", repr(opening[:80].strip())) if echoes else None


@functools.lru_cache(maxsize=4096)
def _words(prompt: str) -> tuple[str, ...]:
    return tuple(words_of(prompt))


RULE = Rule(
    name=Reason.PROMPT_ECHO,
    default=Action.REJECT,
    check=lambda checked: find_prompt_echo(checked.request.prompt, checked.words),
)
