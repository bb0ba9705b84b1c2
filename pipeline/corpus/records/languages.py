"""Detects the language of a caption with py3langid, whose model is part of its package. Its only import.

The confidence is the probability of the language among the candidates. `zxx` (no language: numbers, markup) is no
language.
"""

from functools import lru_cache
from typing import Any, cast

from pipeline.config.corpus_config import LanguagesConfig
from pipeline.errors import ConfigError

NO_LANGUAGE = "zxx"


def detect_language(text: str, config: LanguagesConfig) -> str | None:
    """Return the ISO 639 code of the language of a text, or None if it is not confident enough."""
    language, confidence = cast("tuple[str, float]", _identifier(config.candidates).classify(text))
    return language if confidence >= config.min_confidence and language != NO_LANGUAGE else None


def check_languages(config: LanguagesConfig) -> None:
    """Refuse candidates that the library does not know.

    Raises:
        ConfigError: lists the languages that it knows.
    """
    labels = known_languages()
    unknown = sorted(set(config.candidates).difference(labels))
    if unknown:
        raise ConfigError(
            f"languages.candidates: found {', '.join(unknown)}; {config.detector} knows: {', '.join(labels)}"
        )


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
