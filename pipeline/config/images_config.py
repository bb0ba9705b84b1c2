"""How encoded images become pixels."""

from typing import Annotated

from pydantic import Field, field_validator

from pipeline.config.base import ConfigPart
from pipeline.config.suggestions import did_you_mean

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO")
"""Pillow's names of the formats that may be decoded. EPS is not one of them: it would start Ghostscript."""

Channel = Annotated[int, Field(ge=0, le=255)]


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

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(formats) - set(FORMATS))
        if unknown or not formats:
            suggestion = did_you_mean(unknown, FORMATS)
            raise ValueError(f"found {', '.join(unknown) or 'none'}; allowed: {', '.join(FORMATS)}{suggestion}")
        return formats
