"""Decode one image to RGB pixels of a given size, exactly as Pillow's LANCZOS gives them, or raise `BadImage`.

Models are trained on what Pillow returns, so by default speed never changes a pixel: no draft mode, no reducing gap.
`images.decode: fast` lets libjpeg reduce large JPEGs while it decodes them. The faults of a plain
`open().convert("RGB").resize()` are corrected first: 16-bit grey (becomes white), float grey (becomes black),
transparency (shows hidden colours), orientation (is ignored).

A JPEG that is corrupt in its middle is accepted, as libjpeg accepts it: JPEG has no checksum.
"""

import io
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (  # importing a plugin registers it; Image.open would import all 44 for the missing ones
    AvifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,  # noqa: F401 # pyright: ignore[reportUnusedImport]
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401 # pyright: ignore[reportUnusedImport]
)

from pipeline.config import DecodeMode, ImagesConfig
from pipeline.errors import BadImage
from pipeline.images.high_bit_depth import levels_of
from pipeline.images.pillow_warnings import quiet_pillow
from pipeline.images.sniff import ends_early, kind_of
from schemas.status import Reason

Pixels = npt.NDArray[np.uint8]

Size = tuple[int, int]
"""(width, height) in px."""

SizeOf = Size | Callable[[int, int], Size]
"""The size of the result, or a function that returns it for (width, height) of the upright image."""

# What Pillow 13 raises for malformed bytes: OSError and EOFError by intent, SyntaxError for broken headers,
# the rest from unchecked indexing, arithmetic and unpacking in its Python parsers (fuzzed in
# tests/images). MemoryError: a header may request more than is available.
DECODER_ERRORS = (
    *(
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        OSError,
    ),
    *(RecursionError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)

# A longer side is first reduced by an integer factor. Pillow's resize takes 48 bytes of coefficients per
# pixel of a side (13.0: 92 MB for 1 x 2,000,000): 9.6 GB for a line of 200 million, a PNG of 200 KB.
# JPEG, GIF and WebP end at 65,535, so this affects no photograph.
MAX_SIDE_PX = 131_072

ORIENTATION_TAG = 0x0112

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the operation that makes the image upright."""

SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that exchange width and height."""

REDUCED_FACTOR = 1.95
"""A JPEG that libjpeg reduces keeps at least so many times the width and height of the result, for the resize. Twice,
but for the 4032 x 3024 of many cameras: at 1/4 they have 1.97 times the side of a usual vision encoder, and cost half
of 1/2."""

# Pillow refuses a PNG with a colour profile, an XMP packet or a text above 1 MiB; printer profiles have 1 to 4 MiB. Its
# limit of 64 MiB for all texts of a file still applies.
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20

# Pillow lists only some of the grey TIFFs of more than 8 bits that it can unpack. 12 bits have the same order in files
# of both endians, and `_grey_ends` corrects WhiteIsZero for 16 bits. Pillow cannot unpack 10 and 14 bits.
for _prefix, _levels in ((b"II", "I;16"), (b"MM", "I;16B")):
    for _photometric in (0, 1):
        TiffImagePlugin.OPEN_INFO.setdefault((_prefix, _photometric, (1,), 1, (12,), ()), ("I;16", "I;12"))
        TiffImagePlugin.OPEN_INFO.setdefault((_prefix, _photometric, (1,), 1, (16,), ()), (_levels, _levels))

# Many readers run on one machine, so each decodes with one thread. The pixels do not depend on it.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The pixels for the model, and facts about the original."""

    pixels: Pixels
    """RGB, uint8, shape (height, width, 3), read-only."""
    format: str
    """Pillow's name, such as JPEG."""
    width: int
    """px of the original, after EXIF rotation."""
    height: int


def decode(data: bytes, config: ImagesConfig, size: SizeOf) -> Decoded:
    """Decode the first frame, make it upright and opaque, and resize it.

    Args:
        data: the encoded image.
        config: the limits, and what to apply.
        size: size of the result; the aspect ratio is not kept.

    Raises:
        BadImage: with the reason why the image has no pixels.
    """
    check_bytes(data, config)
    try:
        with quiet_pillow(), open_image(data, config) as image:
            reduced = _reduced(image, config, size) if config.decode is DecodeMode.FAST else None
            return reduced or _exact(image, config, size)
    except Image.DecompressionBombError as err:
        raise too_many_pixels(err, config) from err
    except DECODER_ERRORS as err:
        raise explain(err, data, config) from err


def _exact(image: ImageFile.ImageFile, config: ImagesConfig, size: SizeOf) -> Decoded:
    file_format = image.format or ""
    ends = _grey_ends(image)
    picture = _opaque(_upright(image, apply=config.apply_exif_orientation), config.background, ends)
    width, height = picture.size
    resized = _resized(picture, size if isinstance(size, tuple) else size(width, height))
    return Decoded(np.asarray(resized), file_format, width, height)


def _reduced(image: ImageFile.ImageFile, config: ImagesConfig, size: SizeOf) -> Decoded | None:
    """Decode a JPEG at 1/2, 1/4 or 1/8 of its size; None for other formats, and if the result would be too small."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    orientation = orientation_of(image) if config.apply_exif_orientation else 1
    width, height = _turned(image.size, orientation)
    result = size if isinstance(size, tuple) else size(width, height)
    stored = _turned(result, orientation)  # what becomes `result` when it is put upright
    smallest = (math.ceil(REDUCED_FACTOR * stored[0]), math.ceil(REDUCED_FACTOR * stored[1]))
    if image.width < 2 * smallest[0] or image.height < 2 * smallest[1]:
        return None
    draft = image.draft(None, smallest)
    if draft is None:
        return None
    # The last column and row of the reduced image may stand for less than a whole one: without the box, the picture
    # would be stretched by up to a pixel.
    box = draft[1]
    picture = _opaque(image, config.background, (0.0, 0.0)).resize(stored, Image.Resampling.LANCZOS, box)
    operation = UPRIGHT.get(orientation)
    upright = picture if operation is None else picture.transpose(operation)
    return Decoded(np.asarray(upright), image.format or "", width, height)


def _turned(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if orientation in SIDEWAYS else size


def check_bytes(data: bytes, config: ImagesConfig) -> None:
    """Raise BadImage for an image without bytes, or with too many."""
    if not data:
        raise BadImage(Reason.EMPTY_FILE, "0 bytes")
    if len(data) > config.max_bytes:
        raise BadImage(Reason.TOO_MANY_BYTES, f"{len(data)} bytes, more than max_bytes={config.max_bytes}")


def open_image(data: bytes, config: ImagesConfig) -> ImageFile.ImageFile:
    """Read the header of an image; raises BadImage, and what Pillow raises."""
    # Some plugins allocate when they open a file (WebP its canvas) and check Pillow's own limit first. It is one global
    # of the process: Pillow warns above it and raises above twice its value.
    Image.MAX_IMAGE_PIXELS = -(-config.max_pixels // 2)
    # MPO has no entry of its own in Pillow: the JPEG plugin opens its files.
    allowed = tuple(dict.fromkeys("JPEG" if name == "MPO" else name for name in config.formats))
    image = Image.open(io.BytesIO(data), formats=allowed)
    if image.format not in config.formats:
        raise _unsupported(str(image.format), config)
    width, height = image.size
    if width * height > config.max_pixels:
        raise BadImage(
            Reason.TOO_MANY_PIXELS, f"{image.format} of {width} x {height} px, more than max_pixels={config.max_pixels}"
        )
    if not width or not height:
        raise BadImage(Reason.UNDECODABLE, f"{image.format} of {width} x {height} px")
    return image


def _upright(image: ImageFile.ImageFile, *, apply: bool) -> Image.Image:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # Pillow rotates a TIFF while loading, and this cannot be switched off.
        orientation = _orientation_of_tiff(image)
        image.load()
        if apply or orientation not in UPRIGHT:
            return image
        return image.transpose(UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)])
    image.load()  # a PNG may hold its EXIF after the pixels
    operation = UPRIGHT.get(orientation_of(image)) if apply else None
    return image if operation is None else image.transpose(operation)


def orientation_of(image: Image.Image, read_exif: Callable[[Any], Any] = lambda image: image.getexif()) -> int:
    """Return the EXIF orientation, or 1 (upright) if the image has none."""
    try:
        return int(read_exif(image).get(ORIENTATION_TAG, 1))
    except DECODER_ERRORS:
        return 1  # the pixels are complete: damaged EXIF must not reject the image


def _orientation_of_tiff(image: TiffImagePlugin.TiffImageFile) -> int:
    value: Any = image.tag_v2.get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _grey_ends(image: ImageFile.ImageFile) -> tuple[float, float]:
    """(black, white) of a grey image of 16-bit integers. In TIFF, Pillow scales neither 12 bits nor WhiteIsZero."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0.0, 65535.0
    bits: Any = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE)
    white = 4095.0 if bits == (12,) else 65535.0
    return (white, 0.0) if image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else (0.0, white)


def _opaque(image: Image.Image, background: tuple[int, int, int], grey_ends: tuple[float, float]) -> Image.Image:
    """RGB with `background` under transparent pixels; converted before the resize, because palettes resize badly."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = levels_of(image, grey_ends)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, background)
    opaque.paste(image, mask=image)
    return opaque


def _resized(image: Image.Image, size: Size) -> Image.Image:
    if max(image.size) > MAX_SIDE_PX:
        image = image.reduce((-(-image.width // MAX_SIDE_PX), -(-image.height // MAX_SIDE_PX)))
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def too_many_pixels(err: Image.DecompressionBombError, config: ImagesConfig) -> BadImage:
    """Return the reason for the error that Pillow raises for a header above its limit."""
    return BadImage(Reason.TOO_MANY_PIXELS, f"more than max_pixels={config.max_pixels}: {err}")


def explain(err: BaseException, data: bytes, config: ImagesConfig) -> BadImage:
    """Return the reason for an error that a decoder raised."""
    kind = kind_of(data)
    if isinstance(err, Image.UnidentifiedImageError):
        if kind is None or not set(kind.split(" or ")) & set(config.formats):
            return _unsupported(kind, config, data)
        what = f"{kind} with a damaged header, or a variant that Pillow does not decode"
    else:
        what = f"{kind or 'image'}: {type(err).__name__}: {err}"
    cut = isinstance(err, EOFError) or "truncated" in str(err).lower() or ends_early(data, kind)
    return BadImage(Reason.TRUNCATED_IMAGE if cut else Reason.UNDECODABLE, f"{what} ({len(data)} bytes)")


def _unsupported(kind: str | None, config: ImagesConfig, data: bytes = b"") -> BadImage:
    found = f"looks like {kind}" if kind else f"starts with {data[:16]!r}"
    return BadImage(Reason.UNSUPPORTED_FORMAT, f"{found}; allowed: {', '.join(config.formats)}")
