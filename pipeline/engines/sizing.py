"""How much an engine takes on at once, sized to its device: nothing here can change a caption.

What changes captions (`quantization`, `kv_cache_dtype`, `max_model_len`) is never drawn from a device: it is
asked for by name, enters the recipe, and a device that cannot do it is refused, so that a pool of
unlike cards writes one kind of caption or none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.config import EngineConfig, EngineKind, GpuPreset
from pipeline.engines.capacity import NumberFormats, kv_tokens, weight_bytes
from pipeline.engines.gpus import GIB, GPUS, gpu_of
from pipeline.engines.model_dims import JOYCAPTION, ModelDims
from pipeline.engines.roofline import MAX_NUM_SEQS, roofline
from pipeline.errors import ConfigError

CPU_NUM_SEQS = 64
CPU_STEP_TOKENS = 8192

REQUEST_TOKENS = 1000
"""Of a request and its caption on average, generously: prompts have 790 to 930, captions 60 to 250. vLLM
lets a sequence wait where they come out longer."""

SEQS_STEP = 8
"""CUDA graphs are captured for multiples of it."""

FP8_CAPABILITY = (8, 9)
"""From Ada on a card has fp8 products. Below, vLLM would keep weights in fp8 and multiply in bfloat16: other
captions under one recipe."""

SECONDS_PER_READ = 0.3
"""CPU of decoding a JPEG of 15 million pixels (measured); a usual one of a million takes a fifteenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU as its driver tells it."""

    name: str
    memory_bytes: float
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What an engine takes on at once."""

    max_num_seqs: int
    max_num_batched_tokens: int


def number_formats(config: EngineConfig) -> NumberFormats:
    """Return how the config wants the language model kept."""
    return NumberFormats(fp8=config.quantization == "fp8", kv_bytes=1 if config.kv_cache_dtype == "fp8" else 2)


def size_for(config: EngineConfig, shape: ModelDims, device: Device | None) -> Size:
    """Return the size of an engine on its device, None being a CPU; explicit keys beat the preset.

    Raises:
        ConfigError: the preset is another card's, the device lacks what the config asks for, or the model has no
            room on it.
    """
    if device is None:
        _refuse_on_cpu(config)
        seqs, tokens = CPU_NUM_SEQS, CPU_STEP_TOKENS
    else:
        _refuse_device(config, device)
        seqs, tokens = _fitted(config, shape, device.memory_bytes, device.name)
    return Size(
        max_num_seqs=config.max_num_seqs or seqs,
        # A prompt must fit into one step where prefill is not cut into chunks.
        max_num_batched_tokens=max(config.max_num_batched_tokens or tokens, config.max_model_len),
    )


def planned_num_seqs(config: EngineConfig, *, gpu: bool) -> int:
    """Return the most requests that a replica will decode together, as far as that is known without its device."""
    if config.max_num_seqs:
        return config.max_num_seqs
    if not gpu and config.kind is not EngineKind.ENDPOINT:
        return CPU_NUM_SEQS
    if config.preset is GpuPreset.AUTO:
        return MAX_NUM_SEQS
    return _fitted(config, JOYCAPTION, GPUS[config.preset].memory_bytes, config.preset)[0]


def readers_per_replica(preset: GpuPreset) -> int:
    """Return how many CPU workers keep one GPU fed with one caption an image; the fastest card's for `auto`."""
    cards = GPUS.values() if preset is GpuPreset.AUTO else [GPUS[preset]]
    fastest = max(roofline(card, 1, 800, 60) for card in cards)
    return math.ceil(fastest * SECONDS_PER_READ)


def _fitted(config: EngineConfig, shape: ModelDims, memory_bytes: float, name: str) -> tuple[int, int]:
    """Return sequences and tokens of a step that memory has room for."""
    ranks = config.tensor_parallel_size
    usable = config.gpu_memory_utilization * memory_bytes * ranks
    step = config.max_num_batched_tokens or step_tokens(memory_bytes)
    numbers = number_formats(config)
    tokens = kv_tokens(shape, usable, step, numbers)
    if tokens < config.max_model_len:
        raise ConfigError(
            f"engine: {name} has {ranks} x {memory_bytes / GIB:.1f} GiB, of which "
            f"engine.gpu_memory_utilization={config.gpu_memory_utilization:g} may be used; the weights take "
            f"{weight_bytes(shape, numbers) / GIB:.1f} GiB and leave room for {tokens} tokens, less than "
            f"engine.max_model_len={config.max_model_len}; allowed: a larger card, tensor_parallel_size, quantization: "
            "fp8, or a smaller max_model_len"
        )
    seqs = min(MAX_NUM_SEQS, tokens // REQUEST_TOKENS)
    return max(1, seqs // SEQS_STEP * SEQS_STEP or seqs), step


def step_tokens(memory_bytes: float) -> int:
    """Return the tokens of one engine step.

    In the long run a step holds 1,000 to 2,000 tokens of prefill beside the decoding, so more only shortens
    bursts; each thousand takes 0.13 GiB of activations, which a small card needs for the KV cache.
    """
    if memory_bytes >= 70 * GIB:
        return 16384
    return 8192 if memory_bytes >= 40 * GIB else 4096


def _refuse_on_cpu(config: EngineConfig) -> None:
    if config.preset is not GpuPreset.AUTO:
        raise ConfigError(f"engine.preset={config.preset}: this replica has no GPU; allowed: auto, or a GPU cluster")
    for key, value in (("quantization", config.quantization), ("kv_cache_dtype", config.kv_cache_dtype)):
        if value == "fp8":
            raise ConfigError(f"engine.{key}=fp8: this replica has no GPU; allowed: leave it out, or a GPU cluster")


def _refuse_device(config: EngineConfig, device: Device) -> None:
    found = gpu_of(device.name)
    if config.preset not in (GpuPreset.AUTO, found):
        allowed = "auto" if found is None else f"auto, {found}"
        raise ConfigError(f"engine.preset={config.preset}: this replica's GPU is {device.name}; allowed: {allowed}")
    if config.cpu_kv_cache_gib != EngineConfig.model_fields["cpu_kv_cache_gib"].default:
        raise ConfigError(
            f"engine.cpu_kv_cache_gib={config.cpu_kv_cache_gib}: this replica has a GPU, {device.name}, whose memory "
            "holds the KV cache; allowed: leave it out, and engine.gpu_memory_utilization"
        )
    for key, value in (("quantization", config.quantization), ("kv_cache_dtype", config.kv_cache_dtype)):
        if value == "fp8" and device.capability < FP8_CAPABILITY:
            raise ConfigError(
                f"engine.{key}=fp8: {device.name} has no fp8 arithmetic (compute capability "
                f"{'.'.join(map(str, device.capability))}, needed 8.9): its captions would differ from those of a card "
                "that has it; allowed: leave it out, or other cards"
            )
