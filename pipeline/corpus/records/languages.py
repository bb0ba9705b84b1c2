"""Detects the language of a caption, see `pipeline.quality.language`.

The confidence is the probability of the language among the candidates. `zxx` (no language: numbers, markup) is no
language.
"""

from pipeline.config.corpus_config import LanguagesConfig
from pipeline.errors import ConfigError
from pipeline.quality.language import NO_LANGUAGE, known_languages, language_of


def detect_language(text: str, config: LanguagesConfig) -> str | None:
    """Return the ISO 639 code of the language of a text, or None if it is not confident enough."""
    language, confidence = language_of(text, config.candidates)
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
