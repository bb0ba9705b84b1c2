"""How encoded images become pixels."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import ConfigPart
from pipeline.config.recipe_form import added
from pipeline.config.suggestions import did_you_mean

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO")
"""Pillow's names of the formats that may be decoded. EPS is not one of them: it would start Ghostscript."""

FAST_FORMATS = frozenset({"JPEG", "MPO"})
"""Formats that `decode: fast` changes. The files of MPO are JPEGs."""

Channel = Annotated[int, Field(ge=0, le=255)]


class DecodeMode(StrEnum):
    """How large images become the pixels of the model."""

    EXACT = "exact"
    """Decoded in full and resized once: the pixels of a plain Pillow loop."""
    FAST = "fast"
    """A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is still about twice the model's or more."""


class ImagesConfig(ConfigPart):
    """How encoded images are decoded. An image beyond a limit becomes a failed row."""

    formats: tuple[str, ...] = FORMATS
    """Formats that may be decoded, by Pillow's names."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Width times height, read from the header before decoding. Each reader needs 5 bytes a pixel for
    RGB, 9 for RGBA, 12 for 16-bit grey and up to 22 for lines one pixel wide (measured at 49 million)."""
    max_bytes: int = Field(default=256 << 20, ge=1)
    """Length of the encoded image, in bytes."""
    timeout_s: float = Field(default=60, ge=0.1, le=86_400)
    """Time limit for decoding one image; a slower image is a failed row (`decode_timeout`). Keep it well below
    `cluster.stall_timeout_s`. It is not in the recipe: an image that is decoded in time has the same pixels."""
    background: tuple[Channel, Channel, Channel] = (255, 255, 255)
    """RGB colour under transparent pixels."""
    apply_exif_orientation: bool = True
    """Rotate and mirror the image as its EXIF orientation says."""
    decode: DecodeMode = added(default=DecodeMode.EXACT)
    """`fast` takes less CPU for large JPEGs and changes their pixels slightly (docs/benchmarks.md): they are decoded at
    1/2, 1/4 or 1/8 of their size, at least 1.95 times the model's width and height, and resized from there. Smaller
    JPEGs and all other formats keep their exact pixels."""

    @model_validator(mode="after")
    def _has_fast_formats(self) -> "ImagesConfig":
        if self.decode is DecodeMode.FAST and not FAST_FORMATS.intersection(self.formats):
            raise ValueError(
                f"decode: found fast with formats {', '.join(self.formats)}, which it does not change; allowed: exact, "
                f"or {' or '.join(sorted(FAST_FORMATS))} among the formats"
            )
        return self

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(formats) - set(FORMATS))
        if unknown or not formats:
            suggestion = did_you_mean(unknown, FORMATS)
            raise ValueError(f"found {', '.join(unknown) or 'none'}; allowed: {', '.join(FORMATS)}{suggestion}")
        return formats
