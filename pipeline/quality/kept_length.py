"""Length against the texts of the prompt: a caption with fewer or more of their words than `quality.kept` allows."""

from collections.abc import Sequence

from pipeline.config import Action, KeptConfig, QualityConfig
from pipeline.errors import ConfigError
from pipeline.quality.kept_texts import compared_texts
from pipeline.quality.rule import CheckedText, Finding, Rule
from schemas.status import Reason


def find_length_ratio(config: KeptConfig, texts: Sequence[str], text: str) -> Finding | None:
    """Find a text whose words, divided by those of the texts together, are outside min_ratio..max_ratio."""
    num_given, num_words = sum(len(given.split()) for given in texts), len(text.split())
    if not num_given:
        return None
    ratio = num_words / num_given
    if config.min_ratio is not None and ratio < config.min_ratio:
        limit = f"below quality.kept.min_ratio={config.min_ratio:g}"
    elif config.max_ratio is not None and ratio > config.max_ratio:
        limit = f"above quality.kept.max_ratio={config.max_ratio:g}"
    else:
        return None
    return Finding("length_ratio", f"{num_words} words of {num_given} in the prompt's texts, {ratio:.2f}, {limit}")


def check_ratio(config: QualityConfig) -> None:
    """Refuse the rule without a limit."""
    if config.kept.min_ratio is None and config.kept.max_ratio is None:
        raise ConfigError(
            "quality.actions.length_ratio: is on, and quality.kept has neither min_ratio nor max_ratio; set one"
        )


def _check(checked: CheckedText) -> Finding | None:
    kept = checked.config.kept
    return find_length_ratio(kept, compared_texts(kept, checked.request.given_texts), checked.text)


RULE = Rule(name=Reason.LENGTH_RATIO, default=Action.OFF, check=_check, check_config=check_ratio)
