"""The perceptual hash of an image: 64 bits, in few of which similar images differ. The door of imagehash.

It is `phash` of the library: the signs of the lowest 8 x 8 frequencies of the grey image, by a discrete cosine
transform of 32 x 32 px, against their median. The bits are in the order of the library's 16 hex digits.
"""

from PIL import Image

from pipeline.errors import ConfigError
from pipeline.images.decoding import Pixels, Size

HASH_PIXELS = 4_000_000
"""A larger image is scaled to so many pixels before it is hashed, so that the hash needs at most 16 MB beside the
decoded image. It looks at 1,024 px."""


def size_for_hash(width: int, height: int) -> Size:
    """Return the size at which an image is hashed."""
    scale = (HASH_PIXELS / (width * height)) ** 0.5
    return (width, height) if scale >= 1 else (max(1, round(width * scale)), max(1, round(height * scale)))


def check_library() -> None:
    """Raise ConfigError if the library is not installed."""
    try:
        import imagehash  # noqa: F401, PLC0415 # pyright: ignore[reportUnusedImport]
    except ImportError as err:
        raise ConfigError("--hash phash: imagehash is not installed; run: pip install 'joyfleet[index]'") from err


def perceptual_hash(pixels: Pixels) -> int:
    """Return the hash of RGB pixels."""
    # It imports scipy and PyWavelets: only an index with this hash needs them.
    import imagehash  # noqa: PLC0415

    return int(str(imagehash.phash(Image.fromarray(pixels))), 16)
