"""Pixels as data URIs, which put images into the HTML of a page so that the page is one file."""

import base64
import io

from PIL import Image

from pipeline.images.decoding import Pixels

THUMBNAIL_QUALITY = 80
"""JPEG quality: about 8 kB at 240 px."""


def exact_uri(pixels: Pixels) -> str:
    """Return a data URI with exactly these pixels: lossless WebP, 100 to 250 kB for a photograph of 0.15 megapixels."""
    return _uri(pixels, "webp", lossless=True, quality=50)


def thumbnail_uri(pixels: Pixels) -> str:
    """Return a small data URI: JPEG, not exact."""
    return _uri(pixels, "jpeg", quality=THUMBNAIL_QUALITY)


def _uri(pixels: Pixels, kind: str, **options: object) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
