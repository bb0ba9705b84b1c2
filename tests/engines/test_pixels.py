"""The table equals the model's own image processor, or the model is refused."""

import numpy as np
import pytest
import torch

from pipeline.config import ModelConfig
from pipeline.engines.hub_model import image_processor
from pipeline.errors import ModelMismatch
from pipeline.models.pixel_table import PixelTable
from pipeline.recipe import find_weights

# torchvision beside this torch warns that it has no LANCZOS for tensors; a resize to the same size is none.
pytestmark = pytest.mark.filterwarnings("default")

WEIGHTS = find_weights(ModelConfig(id="standin"))
SIDE = 90


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def normalised(pixels):
    return (torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255 - 0.5) / 0.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_looked_up_is_what_the_processor_makes(dtype):
    process = image_processor(WEIGHTS.path, None)
    table = PixelTable(process, (SIDE, SIDE), dtype, "standin")
    pixels = noise(0)
    assert table(pixels).dtype == getattr(torch, dtype)
    assert torch.equal(table(pixels), process(pixels).to(getattr(torch, dtype)))
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
        ModelMismatch, match="odd: its image processor does not map each of the 256 levels to one value"
    ):
        PixelTable(process, (SIDE, SIDE), "bfloat16", "odd")


def test_a_table_for_images_that_are_not_square():
    table = PixelTable(normalised, (32, 48), "float32", "toy")
    pixels = np.random.default_rng(1).integers(0, 256, (48, 32, 3), dtype=np.uint8)
    assert torch.equal(table(pixels), normalised(pixels))
