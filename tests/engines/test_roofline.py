"""The costs are those of the weights that are there, and the estimates those that the sources state."""

import json
import struct
from pathlib import Path

import pytest

from pipeline.config import GpuPreset, ModelConfig
from pipeline.engines.gpus import GPUS, gpu_of
from pipeline.engines.roofline import Load, roofline, seconds_per_image
from pipeline.models import FAMILIES, NumberFormats
from pipeline.recipe import find_weights

JOYCAPTION, dims_of = FAMILIES["joycaption"].dims, FAMILIES["joycaption"].dims_of
STANDIN = Path(find_weights(ModelConfig(id="standin")).path)


def weights_in(file, prefix):
    """Parameters below a prefix, by the header of a safetensors file."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    sizes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    total = 0
    for name, shape in sizes.items():
        if name.startswith(prefix):
            number = 1
            for side in shape:
                number *= side
            total += number
    return total


def test_joycaption_has_the_parameters_of_its_parts():
    assert JOYCAPTION.language_weights == 8_030_261_248  # Llama-3.1-8B
    assert JOYCAPTION.vision.weights == 397_745_440  # so400m without its last layer, pooling head and last norm
    assert JOYCAPTION.vision_weights - JOYCAPTION.vision.weights == 21_504_000
    assert JOYCAPTION.vision.tokens == 729
    assert JOYCAPTION.kv_values_per_token * 2 == 131_072


def test_the_standin_is_counted_as_its_file_has_it():
    shape, file = dims_of(json.loads((STANDIN / "config.json").read_text())), STANDIN / "model.safetensors"
    assert shape.language_weights == weights_in(file, "language_model.")
    assert shape.vision_weights - shape.vision.weights == weights_in(file, "multi_modal_projector.")
    tower = weights_in(file, "vision_tower.vision_model.")
    unused = weights_in(file, "vision_tower.vision_model.encoder.layers.4.")
    unused += weights_in(file, "vision_tower.vision_model.post_layernorm.")
    assert shape.vision.weights == tower - unused
    assert shape.vision.tokens == json.loads((STANDIN / "config.json").read_text())["image_seq_length"]


def test_work_is_what_the_sources_count():
    assert JOYCAPTION.prefill_flops(800) == pytest.approx(11.3e12, rel=0.01)
    assert JOYCAPTION.vision.flops(4096) == pytest.approx(0.64e12 + 2 * 21_504_000 * 729, rel=0.01)
    assert 120 * JOYCAPTION.decode_flops(860) == pytest.approx(1.8e12, rel=0.05)


@pytest.mark.parametrize(
    ("card", "images_per_s"),
    [
        (GpuPreset.H100, (29, 31)),
        (GpuPreset.H200, (31, 33)),
        (GpuPreset.A100, (9.5, 10.5)),
        (GpuPreset.RTX_4090, (4, 5)),
    ],
)
def test_rates_of_800_and_120_tokens_are_those_stated(card, images_per_s):
    least, most = images_per_s
    assert least <= roofline(JOYCAPTION, GPUS[card], 1, 800, 120) <= most


def test_four_slots_share_the_image():
    for card in (GpuPreset.H100, GpuPreset.H200):
        together, apart = (
            4 * roofline(JOYCAPTION, GPUS[card], 4, 800, 120),
            roofline(JOYCAPTION, GPUS[card], 1, 800, 120),
        )
        assert 2.2 <= together / apart <= 2.8


def test_fp8_is_faster_where_the_card_has_it_and_only_smaller_elsewhere():
    load, fp8 = Load(slots=1, prompt_tokens=800, caption_tokens=120), NumberFormats(fp8=True)
    h100, a10g = GPUS[GpuPreset.H100], GPUS[GpuPreset.A10G]
    assert seconds_per_image(JOYCAPTION, h100, load, fp8) < 0.6 * seconds_per_image(JOYCAPTION, h100, load)
    assert seconds_per_image(JOYCAPTION, a10g, load, fp8) > 0.6 * seconds_per_image(JOYCAPTION, a10g, load)


@pytest.mark.parametrize(("slots", "prompt", "caption"), [(0, 800, 120), (1, 700, 120), (1, 800, 0)])
def test_a_load_that_cannot_be_is_refused(slots, prompt, caption):
    with pytest.raises(ValueError, match="allowed: slots and caption_tokens above 0, prompt_tokens at least"):
        roofline(JOYCAPTION, GPUS[GpuPreset.H100], slots, prompt, caption)


def test_devices_are_known_by_their_drivers_names():
    names = {
        "NVIDIA A100-SXM4-80GB": GpuPreset.A100,
        "NVIDIA A100-PCIE-40GB": GpuPreset.A100_40GB,
        "NVIDIA H100 80GB HBM3": GpuPreset.H100,
        "NVIDIA H200": GpuPreset.H200,
        "NVIDIA L40S": GpuPreset.L40S,
        "NVIDIA GeForce RTX 4090": GpuPreset.RTX_4090,
        "NVIDIA A10G": GpuPreset.A10G,
        "Tesla T4": None,
        "NVIDIA L40": None,
    }
    assert {name: gpu_of(name) for name in names} == names
