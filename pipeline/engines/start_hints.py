"""Known causes of an engine that does not start or dies, recognised in its error text, and what to do about each.

The texts are those of vLLM 0.29, torch 2.13, CUDA and huggingface_hub 1; read in their sources, except for those that
`tests/engines/test_start_failure.py` provokes.
"""

import re
from collections.abc import Sequence

HINTS: Sequence[tuple[str, str]] = (
    (
        r"driver (version is|on your system is too old)|cudaErrorInsufficientDriver|Error 803|system has unsupported "
        r"display driver",
        "the NVIDIA driver is too old for this torch (CUDA 13.0 needs driver 580 or newer; `nvidia-smi` shows it): "
        "update the driver of the node, or use nodes with a newer one",
    ),
    (
        r"nvcc|CUDA_HOME|Ninja build failed|ninja: build stopped",
        "a kernel was to be compiled, and the node has no CUDA toolkit: leave VLLM_USE_FLASHINFER_SAMPLER unset or 0, "
        "or install a toolkit and put nvcc on PATH",
    ),
    (
        r"Failed to find C compiler|g\+\+: (not found|No such file)|'g\+\+'|gcc: not found|InvalidCxxCompiler",
        "the node has no C/C++ compiler: install gcc and g++ (infra/Dockerfile has both)",
    ),
    (
        r"out of memory|OutOfMemoryError|No available memory for the cache blocks|less than desired GPU memory "
        r"utilization|larger than the available KV cache memory",
        "the GPU's memory is too small or in use by another process (`nvidia-smi` lists them): end that process, lower "
        "engine.gpu_memory_utilization or engine.max_num_seqs, or use a larger GPU",
    ),
    (
        r"GatedRepoError|gated repo|is restricted|401 Client Error|RepositoryNotFoundError",
        "the hub refuses the model: accept its licence on the model's page and set HF_TOKEN on every node, or set "
        "model.path to a local copy",
    ),
    (
        r"No space left on device|Errno 28|not enough free disk space",
        "a disk is full: the weights (17 GB) go to HF_HOME, shared memory to /dev/shm, compiled kernels to "
        "~/.cache/vllm; free space or point HF_HOME and VLLM_CACHE_ROOT to a larger disk",
    ),
    (
        r"No CUDA GPUs are available|Found no NVIDIA driver|libcuda\.so|NVML Shared Library Not Found",
        "the process sees no GPU: check `nvidia-smi` on the node; a container needs the NVIDIA runtime (--gpus all)",
    ),
    (
        r"ECC error|fallen off the bus|unspecified launch failure|illegal memory access|CUDA error: unknown error|Xid",
        "the GPU reports a fault: look for `Xid` in `dmesg` on the node, and reset or replace the GPU",
    ),
    (
        r"undefined symbol|libcudart\.so|libtorch_cuda\.so|No kernel image|no kernel image",
        "torch, vLLM and CUDA do not fit together: install again with `make setup KIND=gpu`",
    ),
    (
        r"Bus error|exit code -7|SIGBUS",
        "shared memory ran out: give the node or container a larger /dev/shm (--shm-size)",
    ),
)
"""Pattern and hint; the first pattern that matches counts."""


def hint_for(text: str) -> str | None:
    """Return what to do about an engine's error text; None if no cause is recognised."""
    return next((hint for pattern, hint in HINTS if re.search(pattern, text)), None)
