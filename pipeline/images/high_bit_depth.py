"""Grey images of more than 8 bits become 8 bits without saturating, which Pillow's own conversion does."""

import numpy as np
import numpy.typing as npt
from PIL import Image

# Within them the range, and 255 divided by it, are ordinary numbers in 32 bits.
MIN_RANGE = 1e-35
MAX_RANGE = 3e38


def levels_of(image: Image.Image, ends: tuple[float, float]) -> Image.Image:
    """Scale a grey image of mode I;16*, I or F to L; to LA where a PNG names a transparent level.

    16-bit modes have `ends`, (black, white), where black may be the larger number. For I (32-bit integers) and
    F (floats) no white is stored, so it is read off the values: up to 1 (F only), up to 255, up to 65535 (I only),
    else the range is stretched from minimum to maximum. NaN is black, infinities are the ends.
    """
    values = np.array(image if image.mode != "I" else image.convert("F"), dtype=np.float32)
    transparent = image.info.get("transparency")
    alpha = (
        Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)) if transparent is not None else None
    )
    black, white = ends if image.mode.startswith("I;16") else _range(values, image.mode)
    if white - black > MAX_RANGE:
        values, black, white = values / 4, black / 4, white / 4
    # In place from here on: an image of 200 million pixels holds 0.8 GB in each copy.
    values -= np.float32(black)
    values *= np.float32(255.0 / (white - black))
    np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(values, 0, 255, out=values)
    np.rint(values, out=values)
    grey = Image.fromarray(values.astype(np.uint8))
    return grey if alpha is None else Image.merge("LA", (grey, alpha))


def _range(values: npt.NDArray[np.float32], mode: str) -> tuple[float, float]:
    """(black, white), white above black."""
    finite = np.isfinite(values)
    if not finite.any():
        return 0.0, 1.0
    low = float(np.min(values, where=finite, initial=np.inf))
    high = float(np.max(values, where=finite, initial=-np.inf))
    if low >= 0:
        for white in (1.0, 255.0) if mode == "F" else (255.0, 65535.0):
            if high <= white:
                return 0.0, white
    return (low, high) if high - low > MIN_RANGE else (low, low + 1.0)
