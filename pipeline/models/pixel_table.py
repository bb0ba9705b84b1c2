"""Normalisation of pixels by table, for models whose image processor maps each uint8 level to one value.

An image processor resizes, rescales and normalises in float32, 1.8 ms for a square of 150,000 pixels, and vLLM calls it
in a single thread, with a dummy prompt around it. Our pixels already have the model's size, so that only one value for
each of 256 levels remains. The processor computes these values once; a check at start, with every level in every
channel, proves that it does nothing else. The look-up takes 0.5 ms.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ModelMismatch

Levels = npt.NDArray[np.uint8]
Process = Callable[[Levels], torch.Tensor]
"""An image processor: RGB pixels, shape (height, width, 3), to float32, shape (3, height, width)."""

# NumPy has no bfloat16: the table holds bits, and the tensor gives them their type.
_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


class PixelTable:
    """Normalises images of one size exactly as the model's image processor does."""

    def __init__(self, process: Process, size: tuple[int, int], dtype: str, name: str) -> None:
        """Compute the 256 values, and check that the processor does nothing else.

        Args:
            process: the model's image processor.
            size: (width, height) of all images in px.
            dtype: torch's name of the model's number format.
            name: the model, for messages.

        Raises:
            ModelMismatch: the processor does not map each level to one value.
        """
        self._dtype: torch.dtype = getattr(torch, dtype)
        width, height = size
        every = np.resize(np.arange(256, dtype=np.uint8), (height, width))
        grey = process(np.stack([every] * 3, axis=2)).to(self._dtype)
        # The first 256 pixels in reading order hold the levels 0 to 255.
        values = grey[0].flatten()[:256]
        self._bits = values.view(_BITS[self._dtype]).numpy()
        mixed = np.stack([every, every[::-1], every[:, ::-1]], axis=2)
        if width * height < 256 or not torch.equal(self(mixed), process(mixed).to(self._dtype)):
            raise ModelMismatch(
                f"{name}: its image processor does not map each of the 256 levels to one value for {width} x {height} "
                "pixels; allowed: rescaling and normalising only; compare preprocessor_config.json"
            )

    def __call__(self, pixels: Levels) -> torch.Tensor:
        """Return the normalised pixels, shape (3, height, width), of the dtype of the table."""
        looked_up: npt.NDArray[np.int16 | np.int32] = np.take(self._bits, pixels.transpose(2, 0, 1))
        return torch.from_numpy(looked_up).view(self._dtype)
