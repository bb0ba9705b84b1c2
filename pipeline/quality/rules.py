"""The table of quality rules, and the actions that a config sets for them."""

from collections.abc import Iterable
from importlib.metadata import version

from pipeline.config import Action, QualityConfig
from pipeline.config.config_errors import Mistake
from pipeline.config.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.quality import (
    clip_tokens,
    form,
    kept_facts,
    kept_length,
    language,
    mentions,
    prompt_echo,
    refusal,
    repetition,
    script,
    special_tokens,
)
from pipeline.quality.rule import Rule

RULES: dict[str, Rule] = {
    module.RULE.name: module.RULE
    for module in (
        *(special_tokens, refusal, repetition, prompt_echo, script, form, mentions),
        *(kept_facts, kept_length, language, clip_tokens),
    )
}
"""In the order of evaluation. A new rule adds its module here."""


def action_of(config: QualityConfig, rule: Rule) -> Action:
    """Return the action of a rule."""
    return config.actions.get(rule.name, rule.default)


def check_rules(config: QualityConfig) -> None:
    """Refuse actions of unknown rules, and rules that lack a setting or a library.

    Raises:
        ConfigError: names each unknown rule and the allowed ones, or what a rule lacks.
    """
    mistakes = rule_mistakes(config.actions)
    if mistakes:
        raise ConfigError("\n".join(mistake.message for mistake in mistakes))
    for rule in RULES.values():
        if is_on(config, rule):
            rule.check_config(config)


def is_on(config: QualityConfig, rule: Rule) -> bool:
    """Whether a config applies a rule."""
    return action_of(config, rule) is not Action.OFF


def rule_versions(config: QualityConfig, clip_tokenizer: str | None) -> dict[str, str]:
    """Return what the results of optional rules depend on beside JoyFleet, by name: for the files of an output."""
    versions: dict[str, str] = {}
    if is_on(config, language.RULE):
        versions[language.PACKAGE] = version(language.PACKAGE)
    if is_on(config, clip_tokens.RULE):
        versions["clip_tokens"] = clip_tokens.clip_digest(clip_tokenizer)
    return versions


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
