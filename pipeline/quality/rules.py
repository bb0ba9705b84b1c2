"""The table of quality rules, and the actions that a config sets for them."""

from __future__ import annotations

import difflib

from pipeline.config import Action, QualityConfig
from pipeline.errors import ConfigError
from pipeline.quality import form, prompt_echo, refusal, repetition, script, special_tokens
from pipeline.quality.rule import Rule

RULES: dict[str, Rule] = {
    module.RULE.name: module.RULE for module in (special_tokens, refusal, repetition, prompt_echo, script, form)
}
"""In the order of evaluation. A new rule adds its module here."""


def action_of(config: QualityConfig, rule: Rule) -> Action:
    """Return the action of a rule."""
    return config.actions.get(rule.name, rule.default)


def check_rules(config: QualityConfig) -> None:
    """Refuse actions of unknown rules.

    Raises:
        ConfigError: names each unknown rule and the allowed ones.
    """
    unknown = [name for name in config.actions if name not in RULES]
    if unknown:
        raise ConfigError("\n".join(f"quality.actions.{name}: unknown rule{_hint(name)}" for name in unknown))


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name, RULES, n=1)
    meant = f"; did you mean {close[0]}?" if close else ";"
    return f"{meant} allowed: {', '.join(RULES)}"
