"""Which engine a config asks for, and what a process needs before it may import one."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.config import EngineConfig, EngineKind, SamplingConfig
from pipeline.engines.echo import EchoEngine
from pipeline.engines.protocol import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """All that an engine is started from; pickles."""

    config: EngineConfig
    sampling: SamplingConfig
    repair_penalty: float | None = None
    """The repetition penalty of questions that are asked again; None is `sampling`'s."""
    max_tokens: int
    """Tokens per caption."""
    model_path: str
    """Local folder or hub id of the weights."""
    revision: str | None
    side_px: int
    """Side of the pixels that the engine will be shown."""


def start_engine(spec: EngineSpec) -> Engine:
    """Start an engine; seconds to minutes.

    Raises:
        ConfigError: no prompt fits into the context that the config gives; a server does not know the model,
            refuses the key, or cannot do what the sampling asks.
        ModelMismatch: the model is not JoyCaption-shaped, or a server words prompts otherwise.
        EngineDead: it does not start.
    """
    if spec.config.kind is EngineKind.ECHO:
        return EchoEngine(spec.config.echo_latency_s)
    if spec.config.endpoint is not None:
        # Importing openai takes a second; only this engine needs it.
        from pipeline.engines.endpoint import EndpointEngine  # noqa: PLC0415

        return EndpointEngine(spec, spec.config.endpoint)
    _prepare_process(spec.config)
    # Importing vLLM takes 5 to 7 seconds and looks for devices: only the process that hosts it pays.
    from pipeline.engines.vllm import VllmEngine  # noqa: PLC0415

    return VllmEngine(spec)


def _prepare_process(config: EngineConfig) -> None:
    """Set what vLLM and its libraries read from the environment when they are imported."""
    os.environ.update(
        {
            # Two OpenMP threads were never faster and up to 10 times slower on a busy machine (measured, 2 cores).
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
    )
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
