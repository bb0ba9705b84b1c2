"""The values of each preset: those of the public trainers, without the defects of their code.

v1 is UwULLM's renderer (commit 461fd9d), v2 is KohakUwULLM's (b939107). v2.1 differs from v2 in two ways: persons
come first (its model card, quoted by others), and records have other words. DanTagGen is HakuPhi's (e1d1c08). The
tables of v1 and v2 give each task weight 1, and each of the three tasks with three sections weight 2.
"""

from enum import StrEnum
from typing import Any

from schemas.corpus_row import LengthClass, Task


class Preset(StrEnum):
    """A generation of models; each has its own form of training text."""

    TIPO_V1 = "tipo-v1"
    TIPO_V2 = "tipo-v2"
    TIPO_V2_1 = "tipo-v2.1"
    DANTAGGEN = "dantaggen"


class Rating(StrEnum):
    """Ratings of danbooru."""

    GENERAL = "general"
    SENSITIVE = "sensitive"
    QUESTIONABLE = "questionable"
    EXPLICIT = "explicit"


_CHAINS = {"tag_to_short_to_long": 2, "short_to_tag_to_long": 2, "short_to_long_to_tag": 2}
_TASKS = {
    "all": {"tag": 1, "tag_to_long": 1, "long_to_tag": 1, "short_to_tag": 1, **_CHAINS},
    "tags_long": {"tag": 1, "tag_to_long": 1, "long_to_tag": 1},
    "tags_short": {"tag": 1, "short_to_tag": 1},
    "tags": {"tag": 1},
    "captions": {"short_to_long": 1},
}
_EVEN_TASKS = {
    "all": {task.value: 1 for task in Task if task is not Task.TAG},
    "tags_long": {"tag_to_long": 1, "long_to_tag": 1},
    "tags_short": {"short_to_tag": 1},
    "tags": {"tag": 1},
    "captions": {"short_to_long": 1},
}
_TAGS_ONLY = {name: {} if name == "captions" else {"tag": 1} for name in _TASKS}
_LENGTHS = {
    "very_short": {"min_tags": 0, "max_tags": 18, "paragraphs": 1, "sentences": 2},
    "short": {"min_tags": 18, "max_tags": 36, "paragraphs": 1, "sentences": 4},
    "long": {"min_tags": 36, "max_tags": 48, "paragraphs": 2, "sentences": 4},
    "very_long": {"min_tags": 48, "max_tags": 72, "paragraphs": 3, "sentences": 6},
}
_FIRST = {"tasks": _TASKS, "persons": "first", "metadata": True, "trim": True, "bare_long": False}
_MIXED = {**_FIRST, "persons": "mixed"}
_COYO = {"tasks": _EVEN_TASKS, "persons": "mixed", "metadata": False, "trim": False, "bare_long": False}
_GBC = {**_COYO, "bare_long": True}
_TIPO = {
    "drop_all_probability": 0.1,
    "drop_some_probability": 0.3,
    "keep_line_probability": 0.65,
    "gen_meta": 0.3,
    "given_share": 0.6,
    "loss_on_all_probability": 0.7,
    "lengths": _LENGTHS,
    "longest": "very_long",
}

PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.TIPO_V1: {**_TIPO, "styles": {"default": _FIRST, "coyo": _COYO, "gbc": _GBC}},
    Preset.TIPO_V2: {**_TIPO, "styles": {"default": _MIXED}},
    Preset.TIPO_V2_1: {**_TIPO, "styles": {"default": _FIRST}},
    Preset.DANTAGGEN: {
        "drop_all_probability": 0.3,
        "drop_some_probability": 0.5,
        "keep_line_probability": 0.5,
        "gen_meta": 0.0,
        "given_share": 0.6,
        "loss_on_all_probability": 0.3,
        # HakuPhi's trainer writes `long` at most, and no captions.
        "lengths": {
            name.value: {"min_tags": 16 * number, "paragraphs": 1, "sentences": 1}
            for number, name in enumerate(LengthClass)
        },
        "longest": "long",
        "styles": {"default": {**_FIRST, "tasks": _TAGS_ONLY, "trim": False}},
    },
}

_ERAS = {"steps": ((2021, "newest"), (2018, "recent"), (2015, "mid"), (2011, "early"), (2005, "old"))}
_PERCENTILES = {
    "steps": (
        (95, "masterpiece"),
        (85, "best quality"),
        (75, "great quality"),
        (50, "good quality"),
        (25, "normal quality"),
        (10, "low quality"),
    ),
    "below": "worst quality",
    "strict": True,
}
_SCORES = {
    "steps": (
        (150, "masterpiece"),
        (100, "best quality"),
        (75, "great quality"),
        (50, "good quality"),
        (25, "normal quality"),
        (10, "below average quality"),
        (0, "low quality"),
    ),
    "below": "worst quality",
}
_RATINGS_V1 = {
    "general": ("safe",),
    "sensitive": ("sensitive",),
    "questionable": ("nsfw",),
    "explicit": ("explicit", "nsfw"),
}
_WORDS_V1 = {
    "ratings": _RATINGS_V1,
    "quality_by": "favorites_in_rating",
    "quality": _PERCENTILES,
    "eras": None,
}

WORDS: dict[Preset, dict[str, Any]] = {
    Preset.TIPO_V1: _WORDS_V1,
    Preset.TIPO_V2: {
        "ratings": {rating: (rating.value,) for rating in Rating},
        "quality_by": "score",
        "quality": _SCORES,
        "eras": None,
    },
    # The tables of v2.1 are not public: these are v1's steps, applied to the percentiles that its card names.
    Preset.TIPO_V2_1: {
        "ratings": {**_RATINGS_V1, "explicit": ("nsfw", "explicit")},
        "quality_by": "score_and_favorites_in_year",
        "quality": _PERCENTILES,
        "eras": _ERAS,
    },
    Preset.DANTAGGEN: _WORDS_V1,
}
"""Rating, quality and era words: HakuBooru's for v1 and DanTagGen, raw ratings and scores for v2."""
