"""Start the engine that the config names, and prepare the process before the import of its libraries."""

import os
from dataclasses import dataclass

from pipeline.config import EngineConfig, EngineKind, SamplingConfig
from pipeline.engines.echo import EchoEngine
from pipeline.engines.protocol import Engine
from pipeline.errors import ConfigError
from pipeline.models import Geometry

NOSET_VARIABLE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
"""With it, Ray assigns GPUs to replicas and does not tell them which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Everything that an engine needs to start; pickles."""

    config: EngineConfig
    sampling: SamplingConfig
    repair_penalty: float | None = None
    """Repetition penalty of retried requests; None: the one of `sampling`."""
    max_tokens: int
    """Maximum tokens per caption."""
    family: str
    """Key of `pipeline.models.FAMILIES`."""
    model_path: str
    """Local folder or hub id of the weights."""
    revision: str | None
    geometry: Geometry
    """Of the pixels that the engine will receive."""
    schemas: tuple[str, ...] = ()
    """JSON Schemas that requests may have, as JSON text: checked when the engine starts."""


def start_engine(spec: EngineSpec) -> Engine:
    """Start an engine. This takes seconds to minutes.

    Raises:
        ConfigError: no prompt fits into `engine.max_model_len`; a server does not know the model, refuses the key, or
            does not support the sampling settings or a schema; the environment hides the assigned GPUs.
        ModelMismatch: the model is not of its family, or a server's chat template produces another prompt.
        EngineDead: the engine does not start.
    """
    if spec.config.kind is EngineKind.ECHO:
        return EchoEngine(spec.config.echo_latency_s, spec.config.max_num_seqs)
    if spec.config.endpoint is not None:
        # Importing openai takes a second; only this engine needs it.
        from pipeline.engines.endpoint import EndpointEngine  # noqa: PLC0415

        return EndpointEngine(spec, spec.config.endpoint)
    _prepare_process(spec.config)
    # Importing vLLM takes 5 to 7 seconds and probes devices: only the process that hosts it pays for it.
    from pipeline.engines.vllm import VllmEngine  # noqa: PLC0415

    return VllmEngine(spec)


def _prepare_process(config: EngineConfig) -> None:
    """Set the environment variables that vLLM and its libraries read."""
    if os.environ.get(NOSET_VARIABLE, "").lower() in ("1", "true"):
        raise ConfigError(
            f"{NOSET_VARIABLE}={os.environ[NOSET_VARIABLE]}: found in the environment of a replica; all replicas of a "
            "node would use GPU 0. Remove it from the environment of the nodes, and of the driver where it starts Ray"
        )
    prepare_imports()
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_kv_cache_gib)


def prepare_imports() -> None:
    """Set the environment variables that vLLM and its libraries read at import."""
    os.environ.update(
        {
            # Two OpenMP threads were never faster and up to 10 times slower on a busy machine (measured, 2 cores).
            "OMP_NUM_THREADS": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # vLLM 0.29 warms up with unseeded top-k and top-p, for which FlashInfer compiles its sampler with nvcc: without a
    # CUDA toolkit no engine would start (vllm#49497). Seeded requests never use FlashInfer's sampler.
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
