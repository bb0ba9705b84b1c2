"""The size of an engine's batches on its device. Nothing in this module can change a caption.

Settings that change captions (`quantization`, `kv_cache_dtype`, `max_model_len`) never depend on a device. They are set
by name and enter the recipe, and a device that does not support them is refused. So a pool with different GPUs never
mixes two kinds of captions.
"""

import math
from dataclasses import dataclass

from pipeline.config import EngineConfig, EngineKind, GpuPreset
from pipeline.engines.gpus import GIB, GPUS, gpu_of
from pipeline.engines.roofline import MAX_NUM_SEQS, roofline
from pipeline.errors import ConfigError
from pipeline.models import ModelDims, NumberFormats

CPU_NUM_SEQS = 64
CPU_STEP_TOKENS = 8192

TEXT_TOKENS = 31
"""Of a typical instruction, such as `Write a long descriptive caption for this image.` with its headers."""

TEXT_AND_CAPTION_TOKENS = 231
"""Of an instruction and its caption, a generous average: instructions have 20 to 160 tokens, captions 60 to 250. vLLM
queues sequences if they turn out longer."""

SEQS_STEP = 8
"""vLLM captures CUDA graphs for multiples of it."""

FP8_CAPABILITY = (8, 9)
"""GPUs have fp8 products from Ada on. On older ones vLLM keeps weights in fp8 and multiplies in bfloat16, which gives
other captions under the same recipe."""

SECONDS_PER_READ = 0.3
"""CPU time to decode a JPEG of 15 million pixels (measured); a typical one of a million takes a fifteenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU as its driver reports it."""

    name: str
    memory_bytes: float
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The limits of an engine's batches."""

    max_num_seqs: int
    max_num_batched_tokens: int


def number_formats(config: EngineConfig) -> NumberFormats:
    """Return the number formats that the config sets."""
    return NumberFormats(fp8=config.quantization == "fp8", kv_bytes=1 if config.kv_cache_dtype == "fp8" else 2)


def size_for(config: EngineConfig, dims: ModelDims | None, device: Device | None) -> Size:
    """Return the size of an engine on its device (None: a CPU). Explicit keys override the preset.

    Without dimensions nothing is known about the room for sequences, and vLLM queues those that do not fit.

    Raises:
        ConfigError: the preset is for another GPU, the device does not support a setting, or the model does not fit.
    """
    if device is None:
        _refuse_on_cpu(config)
        seqs, tokens = CPU_NUM_SEQS, CPU_STEP_TOKENS
    else:
        _refuse_device(config, device)
        seqs, tokens = _fitted(config, dims, device.memory_bytes, device.name)
    return Size(
        max_num_seqs=config.max_num_seqs or seqs,
        # A prompt must fit into one step if prefill is not chunked.
        max_num_batched_tokens=max(config.max_num_batched_tokens or tokens, config.max_model_len),
    )


def planned_num_seqs(config: EngineConfig, dims: ModelDims | None, *, gpu: bool) -> int:
    """Return the maximum of requests that a replica decodes together, as far as it is known without the device."""
    if config.max_num_seqs:
        return config.max_num_seqs
    if not gpu and config.kind is not EngineKind.ENDPOINT:
        return CPU_NUM_SEQS
    if config.preset is GpuPreset.AUTO:
        return MAX_NUM_SEQS
    return _fitted(config, dims, GPUS[config.preset].memory_bytes, config.preset)[0]


def readers_per_replica(preset: GpuPreset, dims: ModelDims | None) -> int:
    """Return the number of CPU workers that feed one GPU at one caption an image; for `auto`, the fastest GPU."""
    if dims is None or dims.vision is None:
        return 1  # it decodes no images
    cards = GPUS.values() if preset is GpuPreset.AUTO else [GPUS[preset]]
    fastest = max(roofline(dims, card, 1, dims.shared_tokens + TEXT_TOKENS, 60) for card in cards)
    return math.ceil(fastest * SECONDS_PER_READ)


def _fitted(config: EngineConfig, dims: ModelDims | None, memory_bytes: float, name: str) -> tuple[int, int]:
    """Return the sequences that fit into memory, and the tokens of a step."""
    ranks = config.tensor_parallel_size
    usable = config.gpu_memory_utilization * memory_bytes * ranks
    step = config.max_num_batched_tokens or step_tokens(memory_bytes)
    if dims is None:
        return MAX_NUM_SEQS, step
    numbers = number_formats(config)
    tokens = dims.kv_tokens(usable, step, numbers)
    if tokens < config.max_model_len:
        raise ConfigError(
            f"engine: {name} has {ranks} x {memory_bytes / GIB:.1f} GiB, and "
            f"engine.gpu_memory_utilization={config.gpu_memory_utilization:g} of it may be used; the weights take "
            f"{dims.weight_bytes(numbers) / GIB:.1f} GiB and leave room for {tokens} tokens, less than "
            f"engine.max_model_len={config.max_model_len}; allowed: a larger GPU, tensor_parallel_size, quantization: "
            "fp8, or a smaller max_model_len"
        )
    seqs = min(MAX_NUM_SEQS, tokens // (dims.shared_tokens + TEXT_AND_CAPTION_TOKENS))
    return max(1, seqs // SEQS_STEP * SEQS_STEP or seqs), step


def step_tokens(memory_bytes: float) -> int:
    """Return the tokens of one engine step.

    On average a step has 1,000 to 2,000 tokens of prefill besides the decoding, so a higher limit only shortens
    bursts. Each thousand takes 0.13 GiB of activations, which a small GPU needs for the KV cache.
    """
    if memory_bytes >= 70 * GIB:
        return 16384
    return 8192 if memory_bytes >= 40 * GIB else 4096


def _refuse_on_cpu(config: EngineConfig) -> None:
    if config.preset is not GpuPreset.AUTO:
        raise ConfigError(
            f"engine.preset={config.preset}: this replica has no GPU; allowed: auto, or a cluster with GPUs"
        )
    for key, value in (("quantization", config.quantization), ("kv_cache_dtype", config.kv_cache_dtype)):
        if value == "fp8":
            raise ConfigError(f"engine.{key}=fp8: this replica has no GPU; remove the key, or use a cluster with GPUs")


def _refuse_device(config: EngineConfig, device: Device) -> None:
    found = gpu_of(device.name)
    if config.preset not in (GpuPreset.AUTO, found):
        allowed = "auto" if found is None else f"auto, {found}"
        raise ConfigError(f"engine.preset={config.preset}: this replica's GPU is {device.name}; allowed: {allowed}")
    if config.cpu_kv_cache_gib != EngineConfig.model_fields["cpu_kv_cache_gib"].default:
        raise ConfigError(
            f"engine.cpu_kv_cache_gib={config.cpu_kv_cache_gib}: this replica has a GPU, {device.name}, whose memory "
            "holds the KV cache; remove the key and set engine.gpu_memory_utilization instead"
        )
    for key, value in (("quantization", config.quantization), ("kv_cache_dtype", config.kv_cache_dtype)):
        if value == "fp8" and device.capability < FP8_CAPABILITY:
            raise ConfigError(
                f"engine.{key}=fp8: {device.name} has no fp8 arithmetic (compute capability "
                f"{'.'.join(map(str, device.capability))}, required: 8.9), so its captions would differ from those of "
                "a GPU that has it; remove the key, or use other GPUs"
            )
