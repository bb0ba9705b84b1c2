"""Language changed: a caption in another language than the texts that its prompt had. The only import of py3langid.

Its model is part of its package. A text of a few words fits many languages, so that both texts need `MIN_WORDS` words
and a language that is `MIN_CONFIDENCE` probable.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from pipeline.config import Action, QualityConfig
from pipeline.errors import ConfigError
from pipeline.quality.kept_texts import compared_texts
from pipeline.quality.rule import CheckedText, Finding, Rule, WithinJson
from schemas.status import Reason

PACKAGE = "py3langid"
MIN_WORDS = 5
MIN_CONFIDENCE = 0.9

NO_LANGUAGE = "zxx"
"""The code of numbers and markup."""


def language_of(text: str, candidates: tuple[str, ...] = ()) -> tuple[str, float]:
    """Return the ISO 639 code of a text's language, and its probability among the candidates (none: all)."""
    return cast("tuple[str, float]", _identifier(candidates).classify(text))


def known_languages() -> tuple[str, ...]:
    """Return the codes of all languages that can be detected."""
    return tuple(sorted(set(cast("list[str]", _identifier(()).labels)) - {NO_LANGUAGE}))


@lru_cache(maxsize=4)
def _identifier(candidates: tuple[str, ...]) -> Any:  # noqa: ANN401 - py3langid's, loaded on first use
    """Load the model, once per process and set of candidates: a second."""
    # An optional extra.
    from py3langid.langid import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
        MODEL_FILE,
        LanguageIdentifier,
    )

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if candidates:
        identifier.set_languages(list(candidates))
    return identifier


def find_other_language(texts: Sequence[str], text: str) -> Finding | None:
    """Find a text in a language of none of the texts."""
    languages = {_confident(given) for given in texts} - {None}
    language = _confident(text) if languages else None
    if language is None or language in languages:
        return None
    return Finding("other_language", f"{language}; the texts of the prompt: {', '.join(sorted(map(str, languages)))}")


def _confident(text: str) -> str | None:
    if len(text.split()) < MIN_WORDS:
        return None
    language, confidence = language_of(text)
    return language if confidence >= MIN_CONFIDENCE and language != NO_LANGUAGE else None


def check_package(config: QualityConfig) -> None:
    """Refuse the rule where its library is not installed."""
    del config  # of the protocol of `Rule.check_config`
    try:
        version(PACKAGE)
    except PackageNotFoundError as err:
        raise ConfigError(
            f"quality.actions.other_language: {PACKAGE} is not installed; run: pip install 'joyfleet[languages]'"
        ) from err


def _check(checked: CheckedText) -> Finding | None:
    return find_other_language(compared_texts(checked.config.kept, checked.request.given_texts), checked.text)


RULE = Rule(
    name=Reason.OTHER_LANGUAGE,
    default=Action.OFF,
    check=_check,
    within_json=WithinJson.ALL,
    check_config=check_package,
)
