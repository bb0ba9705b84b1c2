"""An engine is sized to its device; what changes captions is asked for, or refused."""

import itertools

import pytest

from pipeline.config import EngineConfig, GpuPreset, parse_job
from pipeline.engines.gpus import GIB, GPUS
from pipeline.engines.sizing import Device, Size, planned_num_seqs, readers_per_replica, size_for
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.models import FAMILIES

JOYCAPTION = FAMILIES["joycaption"].dims
NAMES = {
    GpuPreset.A100: ("NVIDIA A100-SXM4-80GB", (8, 0)),
    GpuPreset.A100_40GB: ("NVIDIA A100-SXM4-40GB", (8, 0)),
    GpuPreset.H100: ("NVIDIA H100 80GB HBM3", (9, 0)),
    GpuPreset.H200: ("NVIDIA H200", (9, 0)),
    GpuPreset.L40S: ("NVIDIA L40S", (8, 9)),
    GpuPreset.RTX_4090: ("NVIDIA GeForce RTX 4090", (8, 9)),
    GpuPreset.A10G: ("NVIDIA A10G", (8, 6)),
}


def device(card):
    name, capability = NAMES[card]
    return Device(name=name, memory_bytes=GPUS[card].memory_bytes, capability=capability)


def size(card, **keys):
    return size_for(EngineConfig(**keys), JOYCAPTION, card and device(card))


@pytest.mark.parametrize(
    ("card", "seqs", "tokens"),
    [
        (GpuPreset.A10G, 16, 4096),
        (GpuPreset.RTX_4090, 24, 4096),
        (GpuPreset.A100_40GB, 144, 4096),
        (GpuPreset.L40S, 176, 8192),
        (GpuPreset.A100, 256, 16384),
        (GpuPreset.H100, 256, 16384),
        (GpuPreset.H200, 256, 16384),
        (None, 64, 8192),
    ],
)
def test_auto_sizes_an_engine_to_its_card(card, seqs, tokens):
    assert size(card) == Size(max_num_seqs=seqs, max_num_batched_tokens=tokens)
    if card:
        assert size(card, preset=card) == size(card)
        assert planned_num_seqs(EngineConfig(preset=card), JOYCAPTION, gpu=True) == seqs


def test_a_card_that_nobody_listed_is_sized_by_its_memory():
    other = Device(name="NVIDIA B300", memory_bytes=268 * GIB, capability=(10, 3))
    assert size_for(EngineConfig(), JOYCAPTION, other) == Size(max_num_seqs=256, max_num_batched_tokens=16384)
    assert planned_num_seqs(EngineConfig(), JOYCAPTION, gpu=True) == 256


def test_keys_that_are_given_beat_the_preset():
    given = size(GpuPreset.A10G, max_num_seqs=5, max_num_batched_tokens=3000, max_model_len=2500)
    assert given == Size(max_num_seqs=5, max_num_batched_tokens=3000)
    assert size(None, max_model_len=9000).max_num_batched_tokens == 9000
    assert planned_num_seqs(EngineConfig(preset="a10g", max_num_seqs=5), JOYCAPTION, gpu=True) == 5


def test_fp8_and_a_small_kv_cache_make_room():
    plain, fp8, both = (
        size(GpuPreset.RTX_4090, **keys).max_num_seqs
        for keys in ({}, {"quantization": "fp8"}, {"quantization": "fp8", "kv_cache_dtype": "fp8"})
    )
    assert plain < fp8 < both


@pytest.mark.parametrize("key", ["quantization", "kv_cache_dtype"])
@pytest.mark.parametrize("card", [GpuPreset.A100, GpuPreset.A10G])
def test_fp8_is_refused_where_the_card_would_compute_something_else(card, key):
    with pytest.raises(ConfigError, match=rf"engine.{key}=fp8: .*A10.* has no fp8 arithmetic .*8\.9.*remove the key"):
        size(card, **{key: "fp8"})
    with pytest.raises(ConfigError, match=f"engine.{key}=fp8: this replica has no GPU"):
        size(None, **{key: "fp8"})
    assert size(GpuPreset.L40S, **{key: "fp8"})


def test_the_preset_of_another_card_is_refused():
    for preset, card in itertools.permutations((GpuPreset.A100, GpuPreset.H100, GpuPreset.A10G), 2):
        with pytest.raises(ConfigError, match=rf"engine.preset={preset}: .*{NAMES[card][0]}.*allowed: auto, {card}"):
            size(card, preset=preset)
    with pytest.raises(ConfigError, match=r"engine.preset=h100: this replica has no GPU; allowed: auto"):
        size(None, preset="h100")


def test_memory_for_a_cpus_cache_is_refused_on_a_gpu():
    with pytest.raises(ConfigError, match=r"engine.cpu_kv_cache_gib=4: this replica has a GPU, NVIDIA A10G.*remove"):
        size(GpuPreset.A10G, cpu_kv_cache_gib=4)
    assert size(None, cpu_kv_cache_gib=4) == size(None)


def test_a_model_without_room_is_refused_with_the_numbers():
    small = Device(name="Tesla T4", memory_bytes=14.6 * GIB, capability=(7, 5))
    with pytest.raises(
        ConfigError, match=r"Tesla T4 has 1 x 14.6 GiB.*weights take 15.\d GiB.*engine.max_model_len=2048"
    ):
        size_for(EngineConfig(), JOYCAPTION, small)
    assert size_for(EngineConfig(tensor_parallel_size=4), JOYCAPTION, small).max_num_seqs > 0


def test_small_cards_need_few_readers():
    readers = {card: readers_per_replica(card, JOYCAPTION) for card in GPUS}
    assert readers[GpuPreset.A10G] == 1
    assert readers[GpuPreset.H100] > 3 * readers[GpuPreset.RTX_4090]
    assert readers_per_replica(GpuPreset.AUTO, JOYCAPTION) == max(readers.values())


def job(**engine):
    return parse_job(
        {
            "source": "somewhere",
            "output": "out",
            "model": "fancyfeast/llama-joycaption-beta-one-hf-llava",
            "captions": {"slot": "long", "mode": "descriptive"},
            "engine": engine,
        }
    )


def test_what_changes_captions_is_in_the_recipe_and_the_preset_is_not():
    plain = check_job(job())[0].fingerprint
    assert check_job(job(preset="h100"))[0].fingerprint == plain
    assert check_job(job(preset="a10g", max_num_seqs=7))[0].fingerprint == plain
    fp8 = check_job(job(quantization="fp8"))[0].fingerprint
    kv = check_job(job(kv_cache_dtype="fp8"))[0].fingerprint
    assert len({plain, fp8, kv}) == 3


def test_an_unknown_preset_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"engine.preset: found 'v100'; .*'auto', 'a100'"):
        job(preset="v100")
