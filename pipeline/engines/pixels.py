"""Pixels as the vision tower takes them, by table: a uint8 level has one normalised value, which we look up.

A model's image processor resizes, rescales and normalises in float32, 1.8 ms for 384 x 384 pixels, and vLLM
calls it in a single thread, with a dummy prompt around it. Our pixels have the model's size already, so what
is left is one value for each of 256 levels: the processor itself is asked for them once, and a check with
every level in every channel shows at start that it does nothing else. The look-up takes 0.5 ms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoImageProcessor

from pipeline.errors import ModelMismatch

Levels = npt.NDArray[np.uint8]
Process = Callable[[Levels], torch.Tensor]
"""RGB pixels, shape (height, width, 3), to what the tower takes, shape (3, height, width)."""

# NumPy has no bfloat16: bits are looked up, and the tensor says what they mean.
_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def image_processor(model_path: str, revision: str | None) -> Process:
    """Return the model's own preparation of an image, in float32."""
    processor = AutoImageProcessor.from_pretrained(model_path, revision=revision)
    return lambda pixels: processor(images=[pixels], return_tensors="pt", input_data_format="channels_last")[
        "pixel_values"
    ][0]


class PixelTable:
    """Normalises images of one size as a model's processor would."""

    def __init__(self, process: Process, side_px: int, dtype: torch.dtype, name: str) -> None:
        """Ask the processor for its 256 values, and check that they are all that it does.

        Raises:
            ModelMismatch: it does more than give each level its value.
        """
        self._dtype = dtype
        every = np.resize(np.arange(256, dtype=np.uint8), (side_px, side_px))
        grey = process(np.stack([every] * 3, axis=2)).to(dtype)
        # The first 256 pixels in reading order hold the levels 0 to 255.
        values = grey[0].flatten()[:256]
        self._bits = values.view(_BITS[dtype]).numpy()
        mixed = np.stack([every, every[::-1], every.T], axis=2)
        if side_px**2 < 256 or not torch.equal(self(mixed), process(mixed).to(dtype)):
            raise ModelMismatch(
                f"{name}: its image processor does more than give each of 256 levels its value, which is all that "
                f"JoyCaption's does to {side_px} x {side_px} pixels; compare preprocessor_config.json"
            )

    def __call__(self, pixels: Levels) -> torch.Tensor:
        """Return what the tower takes, shape (3, height, width), of the table's dtype."""
        looked_up: npt.NDArray[np.int16 | np.int32] = np.take(self._bits, pixels.transpose(2, 0, 1))
        return torch.from_numpy(looked_up).view(self._dtype)
