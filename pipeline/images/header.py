"""Format and size of an image from its header alone, exactly as `decode` reports them."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, PngImagePlugin, TiffImagePlugin

from pipeline.config import ImagesConfig
from pipeline.images.decoding import (
    DECODER_ERRORS,
    ORIENTATION_TAG,
    SIDEWAYS,
    check_bytes,
    explain,
    open_image,
    orientation_of,
    too_many_pixels,
)
from pipeline.images.pillow_warnings import quiet_pillow

PNG_SIGNATURE_BYTES = 8
MAY_HOLD_ORIENTATION = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
"""PNG chunks; the texts may hold EXIF in ImageMagick's form, or XMP."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an image says."""

    format: str
    """Pillow's name, such as JPEG."""
    width: int
    """px, after EXIF rotation."""
    height: int


def read_header(data: bytes, config: ImagesConfig) -> Header:
    """Read format and size without decoding pixels.

    Raises:
        BadImage: as `decode` would; that the header is whole does not mean that the image can be decoded.
    """
    check_bytes(data, config)
    try:
        with quiet_pillow(), open_image(data, config) as image:
            width, height = image.size
            if _exchanges_sides(image, data, config):
                width, height = height, width
            return Header(image.format or "", width, height)
    except Image.DecompressionBombError as err:
        raise too_many_pixels(err, config) from err
    except DECODER_ERRORS as err:
        raise explain(err, data, config) from err


def _exchanges_sides(image: Image.Image, data: bytes, config: ImagesConfig) -> bool:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow gives the upright size of a TIFF, whatever the config; `decode` turns it back.
        return not config.apply_exif_orientation and image.tag_v2.get(ORIENTATION_TAG) in SIDEWAYS
    if not config.apply_exif_orientation:
        return False
    if isinstance(image, PngImagePlugin.PngImageFile) and not _has_late_chunks(data):
        # Pillow's own `getexif` of a PNG decodes the pixels, because EXIF may follow them.
        return orientation_of(image, Image.Image.getexif) in SIDEWAYS
    return orientation_of(image) in SIDEWAYS


def _has_late_chunks(data: bytes) -> bool:
    """Whether a chunk behind the first pixels of a PNG may say how the image is turned."""
    pixels_seen = False
    for kind in _chunks(data):
        pixels_seen = pixels_seen or kind == b"IDAT"
        if pixels_seen and kind in MAY_HOLD_ORIENTATION:
            return True
    return False


def _chunks(data: bytes) -> Iterator[bytes]:
    at = PNG_SIGNATURE_BYTES
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind
        at += 12 + length
