"""The requests that the stand-in was trained on: mode, tone, length, options and name."""

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """The kind of text that is requested."""

    DESCRIPTIVE = "descriptive"
    TRAINING_PROMPT = "training-prompt"
    MIDJOURNEY = "midjourney"
    BOORU_TAGS = "booru-tags"
    BOORU_LIKE_TAGS = "booru-like-tags"
    ART_CRITIC = "art-critic"
    PRODUCT_LISTING = "product-listing"
    SOCIAL_MEDIA = "social-media"


class Tone(StrEnum):
    """Only the descriptive mode has two tones; every other mode uses `FORMAL`."""

    FORMAL = "formal"
    CASUAL = "casual"


class Length(StrEnum):
    """The length classes as the prompt names them, from short to long."""

    VERY_SHORT = "very short"
    SHORT = "short"
    MEDIUM_LENGTH = "medium-length"
    LONG = "long"
    VERY_LONG = "very long"


class Option(StrEnum):
    """The extra instructions, in the order of the catalogue."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request about a picture; at most one of `length` and `words` is set."""

    mode: Mode = Mode.DESCRIPTIVE
    tone: Tone = Tone.FORMAL
    length: Length | None = None
    words: int | None = None
    """Maximum number of words in the caption, at least 10."""
    options: tuple[Option, ...] = ()
    name: str | None = None
    """The name that `Option.NAME` gives to the object; unused without that option."""
