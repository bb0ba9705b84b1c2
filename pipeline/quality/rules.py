"""The table of quality rules, and the actions that a config sets for them."""

from collections.abc import Iterable

from pipeline.config import Action, QualityConfig
from pipeline.config.config_errors import Mistake
from pipeline.config.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.quality import form, mentions, prompt_echo, refusal, repetition, script, special_tokens
from pipeline.quality.rule import Rule

RULES: dict[str, Rule] = {
    module.RULE.name: module.RULE
    for module in (special_tokens, refusal, repetition, prompt_echo, script, form, mentions)
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
    mistakes = rule_mistakes(config.actions)
    if mistakes:
        raise ConfigError("\n".join(mistake.message for mistake in mistakes))


def rule_mistakes(names: Iterable[str]) -> list[Mistake]:
    """Return a mistake for each key of `quality.actions` that is not a rule."""
    return [
        Mistake(
            ("quality", "actions", name),
            f"quality.actions.{name}: unknown rule; allowed: {', '.join(RULES)}{did_you_mean(name, RULES)}",
        )
        for name in names
        if name not in RULES
    ]
