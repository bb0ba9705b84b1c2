"""Reads tags with confidences, as taggers write them, and keeps those that reach the threshold of their kind.

Shapes: a mapping from tag to confidence, a list of pairs, a list of mappings such as `{label, score}`, each also as
JSON or a Python literal in a text; a text such as `1girl:0.99, (solo:0.98)`; two columns with lists of one length.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pipeline.config import RecordTagsConfig
from pipeline.config.corpus_config import CaptionsConfig, TableConfig
from pipeline.config.render_config import ConfidenceConfig

Pairs = list[tuple[Any, Any]]
"""Tags and confidences, unchecked."""

TAG_NAMES = ("tag", "name", "label")
CONFIDENCE_NAMES = ("confidence", "score", "probability", "prob")
_SCORED = re.compile(r"\(?(?P<tag>.*\S)\s*:\s*(?P<confidence>[01]?\.\d+)\)?")
_BETWEEN = re.compile(r"[,\r\n]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRules:
    """Which tags of a table are kept by their confidence; pickles."""

    thresholds: Mapping[str, float] = field(default_factory=dict[str, float])
    """By field of `schemas.image_facts`; empty: tags with confidences are not read."""
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field to the column with the confidences of its tags, where that is a list of its own."""


NO_RULES = ScoreRules()


Entry = TypeVar("Entry", CaptionsConfig, TableConfig)


def with_threshold(entry: Entry, tags: RecordTagsConfig) -> Entry:
    """Return an entry with its own thresholds, else with those of the corpus."""
    return entry.model_copy(update={"min_confidence": entry.min_confidence or tags.min_confidence})


def score_rules(entry: CaptionsConfig | TableConfig) -> ScoreRules:
    """Return the rules of an entry of `with_threshold`."""
    config = entry.min_confidence
    columns = {str(name): column for name, column in entry.confidences.items()}
    return ScoreRules(thresholds=_thresholds(config) if config else {}, columns=columns)


def _thresholds(config: ConfidenceConfig) -> dict[str, float]:
    kinds = {
        name: config.default if getattr(config, name) is None else getattr(config, name)
        for name in ("general", "character", "copyright", "artist", "meta")
    }
    return {**kinds, "tags": kinds["general"], "rating": 0.0}


def pairs_of(value: object) -> Pairs | None:
    """Return the tags and confidences in a parsed value or a text, or None if it has no confidences."""
    if isinstance(value, Mapping):
        # Arrow gives each struct all keys of its type, with null for those that the row does not have.
        return [pair for pair in cast("Mapping[Any, Any]", value).items() if pair[1] is not None]
    if isinstance(value, str):
        return _text_pairs(value)
    if not isinstance(value, Sequence) or not value:
        return None
    items = cast("Sequence[Any]", value)
    if all(isinstance(item, Mapping) for item in items):
        return [(_first(item, TAG_NAMES), _first(item, CONFIDENCE_NAMES)) for item in items]
    if all(isinstance(item, list | tuple) and len(item) == 2 for item in items):
        return [(item[0], item[1]) for item in items]
    return None


def _first(item: Mapping[str, Any], names: Iterable[str]) -> Any:  # noqa: ANN401 - JSON
    return next((item[name] for name in names if item.get(name) is not None), None)


def _text_pairs(text: str) -> Pairs | None:
    matches = [_SCORED.fullmatch(part.strip()) for part in _BETWEEN.split(text) if part.strip()]
    pairs = [(match["tag"], match["confidence"]) for match in matches if match]
    return pairs if pairs and len(pairs) == len(matches) else None


def parallel_pairs(tags: Sequence[Any], confidences: object) -> Pairs | None:
    """Return the pairs of two lists of one length, or None if they are not; a text of numbers is split at commas."""
    if isinstance(confidences, str):
        confidences = [part for part in confidences.split(",") if part.strip()]
    if not isinstance(confidences, Sequence) or len(cast("Sequence[Any]", confidences)) != len(tags):
        return None
    return list(zip(tags, cast("Sequence[Any]", confidences), strict=True))


def confident(pairs: Pairs, threshold: float, faults: Counter[str]) -> list[str]:
    """Return the tags that reach a threshold, in their order.

    Counts `bad_tag`, `bad_confidence` (not a number from 0 to 1) and `tag_below_confidence`.
    """
    kept: list[str] = []
    for tag, confidence in _checked(pairs, faults):
        if confidence >= threshold:
            kept.append(tag)
        else:
            faults["tag_below_confidence"] += 1
    return kept


def most_confident(pairs: Pairs, faults: Counter[str]) -> str | None:
    """Return the tag with the highest confidence, the first of equal ones: the rating of a tagger."""
    return max(_checked(pairs, faults), key=lambda pair: pair[1], default=(None, 0.0))[0]


def _checked(pairs: Pairs, faults: Counter[str]) -> Iterator[tuple[str, float]]:
    for tag, confidence in pairs:
        number = _number(confidence)
        if not isinstance(tag, str | int) or isinstance(tag, bool):
            faults["bad_tag"] += 1
        elif number is None:
            faults["bad_confidence"] += 1
        else:
            yield str(tag), number


def _number(value: object) -> float | None:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # an integer beyond all floats
        return None
    return number if math.isfinite(number) and 0 <= number <= 1 else None
