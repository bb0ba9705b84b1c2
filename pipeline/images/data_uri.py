"""Pixels as a page shows them: inside its own text, so that the page is one file."""

import base64
import io

from PIL import Image

from pipeline.images.decode import Pixels

THUMBNAIL_QUALITY = 80
"""Of JPEG: some 8 kB at 240 px."""


def exact_uri(pixels: Pixels) -> str:
    """Return a data URI with these very pixels: lossless WebP, 100 to 250 kB for a photograph of 384 px."""
    return _uri(pixels, "webp", lossless=True, quality=50)


def thumbnail_uri(pixels: Pixels) -> str:
    """Return a data URI that shows them: JPEG."""
    return _uri(pixels, "jpeg", quality=THUMBNAIL_QUALITY)


def _uri(pixels: Pixels, kind: str, **options: object) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
