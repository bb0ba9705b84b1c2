"""The supported GPUs: their arithmetic, memory bandwidth and memory size, from the makers' data sheets."""

from dataclasses import dataclass

from pipeline.config import EngineConfig, GpuPreset

GIB = 2**30
TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One model of GPU."""

    marks: tuple[str, ...]
    """All of these are parts of the device name that the driver reports."""
    memory_bytes: float
    """As the driver reports it: a GPU sold with 24 GB has 22 to 24 GiB."""
    bytes_per_s: float
    """Memory bandwidth."""
    flops: float
    """bfloat16 matrix products with float32 sums, dense, per second."""
    fp8_flops: float | None
    """None: the GPU has no fp8 products."""


GPUS: dict[GpuPreset, Gpu] = {
    # NVIDIA's data sheets, dense figures (half of those "with sparsity"); A100, H100 and H200 in their SXM form.
    GpuPreset.A100_40GB: Gpu(
        marks=("A100", "40GB"), memory_bytes=39.4 * GIB, bytes_per_s=1.555 * TERA, flops=312 * TERA, fp8_flops=None
    ),
    GpuPreset.A100: Gpu(
        marks=("A100",), memory_bytes=79.3 * GIB, bytes_per_s=2.039 * TERA, flops=312 * TERA, fp8_flops=None
    ),
    GpuPreset.H100: Gpu(
        marks=("H100",), memory_bytes=79.1 * GIB, bytes_per_s=3.35 * TERA, flops=989 * TERA, fp8_flops=1979 * TERA
    ),
    GpuPreset.H200: Gpu(
        marks=("H200",), memory_bytes=139.8 * GIB, bytes_per_s=4.8 * TERA, flops=989 * TERA, fp8_flops=1979 * TERA
    ),
    GpuPreset.L40S: Gpu(
        marks=("L40S",), memory_bytes=44.4 * GIB, bytes_per_s=0.864 * TERA, flops=362 * TERA, fp8_flops=733 * TERA
    ),
    # GeForce GPUs halve the rate of products with float32 sums.
    GpuPreset.RTX_4090: Gpu(
        marks=("4090",), memory_bytes=23.5 * GIB, bytes_per_s=1.008 * TERA, flops=165 * TERA, fp8_flops=330 * TERA
    ),
    GpuPreset.A10G: Gpu(
        marks=("A10G",), memory_bytes=22.3 * GIB, bytes_per_s=0.6 * TERA, flops=70 * TERA, fp8_flops=None
    ),
}
"""An entry with more marks comes before one with fewer."""


def gpu_of(device: str) -> GpuPreset | None:
    """Return the GPU by the name that the driver reports, such as `NVIDIA A100-SXM4-80GB`; None if it is unknown."""
    for name, gpu in GPUS.items():
        if all(mark in device for mark in gpu.marks):
            return name
    return None


HOPPER = 9
"""Major compute capability of H100 and H200."""


def attention_backend(config: EngineConfig, capability: tuple[int, int] | None) -> str | None:
    """Return the attention backend to ask vLLM for; None leaves it to vLLM.

    With an fp8 KV cache, vLLM 0.29 takes FlashAttention on compute capability 9.0 alone. Elsewhere it takes FlashInfer
    (10.0: before FlashAttention), which compiles its kernels with nvcc; Triton's backend reads fp8, too, and needs only
    a C compiler.
    """
    if config.kv_cache_dtype != "fp8" or capability is None or capability[0] == HOPPER:
        return None
    return "TRITON_ATTN"
