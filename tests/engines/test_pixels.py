"""The table gives what the model's own image processor gives, or the model is refused."""

import numpy as np
import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.engines.pixels import PixelTable, image_processor
from pipeline.errors import ModelMismatch
from pipeline.recipe import find_weights

# torchvision beside this torch warns that it has no LANCZOS for tensors; a resize to the same size is none.
pytestmark = pytest.mark.filterwarnings("default")

WEIGHTS = find_weights(ModelConfig(id="standin"))
SIDE = WEIGHTS.side_px


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def normalised(pixels):
    return (torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255 - 0.5) / 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_looked_up_is_what_the_processor_makes(dtype):
    process = image_processor(WEIGHTS.path, None)
    table = PixelTable(process, SIDE, dtype, "standin")
    pixels = noise(0)
    assert table(pixels).dtype == dtype
    assert torch.equal(table(pixels), process(pixels).to(dtype))
    assert table(pixels).is_contiguous()


def blurred(pixels):
    values = normalised(pixels)
    return (values + values.roll(1, dims=2)) / 2


def per_channel(pixels):
    return normalised(pixels) * torch.tensor([1.0, 0.9, 0.8])[:, None, None]


def mirrored(pixels):
    return normalised(pixels).flip(2)


@pytest.mark.parametrize("process", [blurred, per_channel, mirrored])
def test_a_processor_that_does_more_is_refused(process):
    with pytest.raises(
        ModelMismatch, match="odd: its image processor does more than give each of 256 levels its value"
    ):
        PixelTable(process, SIDE, torch.bfloat16, "odd")
