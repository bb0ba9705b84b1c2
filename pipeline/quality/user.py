"""The user's own rules of `quality.rules`, compiled once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import UserRule
from pipeline.quality.rule import Finding


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule of `quality.rules` with its expressions."""

    rule: UserRule
    pattern: re.Pattern[str] | None
    forbidden: re.Pattern[str] | None
    required: tuple[re.Pattern[str], ...]


def compile_rules(rules: Sequence[UserRule]) -> tuple[CompiledRule, ...]:
    """Compile the expressions and the words of the rules."""
    return tuple(
        CompiledRule(
            rule=rule,
            pattern=re.compile(rule.pattern) if rule.pattern else None,
            forbidden=_whole_words(rule.forbidden) if rule.forbidden else None,
            required=tuple(_whole_words([word]) for word in rule.required),
        )
        for rule in rules
    )


def _whole_words(words: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)


def find_by_user(compiled: CompiledRule, mode: str, num_words: int, text: str) -> Finding | None:
    """Find a text that meets one of the conditions of the rule."""
    rule = compiled.rule
    if rule.modes and mode not in rule.modes:
        return None
    detail = _bounds(rule, num_words) or _expressions(compiled, text)
    return Finding(rule.name, detail) if detail else None


def _bounds(rule: UserRule, num_words: int) -> str | None:
    if rule.min_words and num_words < rule.min_words:
        return f"{num_words} words, below {rule.min_words}"
    if rule.max_words and num_words > rule.max_words:
        return f"{num_words} words, above {rule.max_words}"
    return None


def _expressions(compiled: CompiledRule, text: str) -> str | None:
    for expression in (compiled.pattern, compiled.forbidden):
        match = expression.search(text) if expression else None
        if match:
            return f"has {match[0][:60]!r}"
    for word, expression in zip(compiled.rule.required, compiled.required, strict=True):
        if not expression.search(text):
            return f"does not have {word[:60]!r}"
    return None
