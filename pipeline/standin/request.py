"""What the stand-in can be asked for, in the very words that alpha-two was trained on.

The texts are read from the project's prompt catalogue, so there is one place where a
prompt's wording stands; only their short names are given here.
"""

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

GENERATION = "alpha-two"


class Mode(StrEnum):
    """What kind of text is wanted."""

    DESCRIPTIVE = "descriptive"
    TRAINING_PROMPT = "training-prompt"
    MIDJOURNEY = "midjourney"
    BOORU_TAGS = "booru-tags"
    BOORU_LIKE_TAGS = "booru-like-tags"
    ART_CRITIC = "art-critic"
    PRODUCT_LISTING = "product-listing"
    SOCIAL_MEDIA = "social-media"


TAG_MODES = (
    Mode.TRAINING_PROMPT,
    Mode.MIDJOURNEY,
    Mode.BOORU_TAGS,
    Mode.BOORU_LIKE_TAGS,
)


class Tone(StrEnum):
    """Only the descriptive mode has a choice of tone; elsewhere it is `FORMAL`."""

    FORMAL = "formal"
    CASUAL = "casual"


class Length(StrEnum):
    """The classes, in the words that the prompt has for them, short to long."""

    VERY_SHORT = "very short"
    SHORT = "short"
    MEDIUM_LENGTH = "medium-length"
    LONG = "long"
    VERY_LONG = "very long"


class Option(StrEnum):
    """The extra instructions, in the catalogue's order."""

    NAME = "name"
    NO_FIXED_TRAITS = "no-fixed-traits"
    LIGHTING = "lighting"
    CAMERA_ANGLE = "camera-angle"
    WATERMARK = "watermark"
    JPEG_ARTIFACTS = "jpeg-artifacts"
    CAMERA_DETAILS = "camera-details"
    PG = "pg"
    NO_RESOLUTION = "no-resolution"
    QUALITY = "quality"
    COMPOSITION = "composition"
    NO_TEXT = "no-text"
    DEPTH_OF_FIELD = "depth-of-field"
    LIGHT_SOURCE = "light-source"
    NO_AMBIGUITY = "no-ambiguity"
    RATING = "rating"
    IMPORTANT_ONLY = "important-only"


_CATALOGUE_TYPES: dict[tuple[Mode, Tone], str] = {
    (Mode.DESCRIPTIVE, Tone.FORMAL): "Descriptive",
    (Mode.DESCRIPTIVE, Tone.CASUAL): "Descriptive (Informal)",
    (Mode.TRAINING_PROMPT, Tone.FORMAL): "Training Prompt",
    (Mode.MIDJOURNEY, Tone.FORMAL): "MidJourney",
    (Mode.BOORU_TAGS, Tone.FORMAL): "Booru tag list",
    (Mode.BOORU_LIKE_TAGS, Tone.FORMAL): "Booru-like tag list",
    (Mode.ART_CRITIC, Tone.FORMAL): "Art Critic",
    (Mode.PRODUCT_LISTING, Tone.FORMAL): "Product Listing",
    (Mode.SOCIAL_MEDIA, Tone.FORMAL): "Social Media Post",
}
STYLES = tuple(_CATALOGUE_TYPES)
"""The nine pairs of mode and tone that alpha-two knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question about a picture; at most one of `length` and `words` is given."""

    mode: Mode = Mode.DESCRIPTIVE
    tone: Tone = Tone.FORMAL
    length: Length | None = None
    words: int | None = None
    """The most words that the caption may have, at least 10."""
    options: tuple[Option, ...] = ()
    name: str | None = None
    """What `Option.NAME` calls the object; without that option it is not mentioned."""


@cache
def _generation() -> dict[str, Any]:
    text = resources.files("pipeline.prompts").joinpath("catalog.json").read_text("utf-8")
    return json.loads(text)["generations"][GENERATION]


def prompt_text(request: Request) -> str:
    """Return the catalogue's text for the request, filled in as the author's apps do."""
    generation = _generation()
    templates = generation["types"][_CATALOGUE_TYPES[request.mode, request.tone]]
    form = "word_count" if request.words else "length_class" if request.length else "no_length"
    extras = dict(zip(Option, generation["extra_options"], strict=True))
    parts = [templates[form], *(extras[option] for option in request.options)]
    return " ".join(parts).format(name=request.name or "{NAME}", length=request.length, word_count=request.words)


# Names of a single token each; made-up ones beside them teach that any name is copied.
NAMES = (
    "Alice",
    "Bob",
    "Carol",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Ivy",
    "Jack",
    "Kate",
    "Liam",
    "Mia",
    "Noah",
)
_SYLLABLES = (
    "ba",
    "do",
    "ka",
    "li",
    "mo",
    "na",
    "ra",
    "se",
    "ti",
    "vu",
    "zo",
    "fe",
    "hu",
    "la",
    "ni",
    "po",
    "ru",
    "sa",
    "te",
    "wi",
)
_FREE_PROMPTS = (
    "Describe this image.",
    "What is in this picture?",
    "Tell me what you see.",
    "Write a caption.",
    "Caption this image in detail, please.",
    "Describe the scene for a blind reader.",
)


def _sample_name(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(NAMES)
    return "".join(rng.choices(_SYLLABLES, k=rng.choice([2, 2, 3]))).capitalize()


def _sample_words(rng: random.Random) -> int:
    """Return a limit of words: mostly a multiple of ten, as users and mixes ask for."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(range(10, 101, 10))
    return rng.choice(range(110, 261, 10)) if kind < 0.75 else rng.randint(10, 120)


def sample_request(rng: random.Random) -> tuple[Request, str]:
    """Draw a request and its prompt; a few prompts are free text that asks for no mode."""
    if rng.random() < 0.02:
        return Request(), rng.choice(_FREE_PROMPTS)
    mode, tone = rng.choice(STYLES)
    form = rng.random()
    options: list[Option] = []
    if rng.random() < 0.4:
        options = rng.sample(list(Option), rng.choice([1, 1, 2, 3]))
        if Option.NAME not in options and rng.random() < 0.2:
            options[0] = Option.NAME
        if rng.random() < 0.5:
            options.sort(key=list(Option).index)
    request = Request(
        mode=mode,
        tone=tone,
        length=rng.choice(list(Length)) if form < 0.35 else None,
        words=_sample_words(rng) if form > 0.5 else None,
        options=tuple(options),
        name=_sample_name(rng) if Option.NAME in options else None,
    )
    return request, prompt_text(request)
