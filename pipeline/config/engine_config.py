"""The engine of each replica, the size of the pool, and the servers of an endpoint."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import ConfigPart, without_user


class EngineKind(StrEnum):
    """What answers the requests."""

    VLLM = "vllm"
    ENDPOINT = "endpoint"
    """An OpenAI-compatible server such as `vllm serve`; this process loads no model."""
    ECHO = "echo"
    """No model: the answer names the mean colour. For testing a config and for measuring the pipeline alone."""


class EndpointConfig(ConfigPart):
    """Servers that speak OpenAI's chat API. All serve the same model."""

    urls: tuple[str, ...] = Field(min_length=1)
    """Such as http://gpu-1:8000/v1. All requests of an image go to the same server."""
    model: str | None = None
    """Name of the model on the servers; by default `model.id`."""
    api_key_env: str | None = None
    """Environment variable that holds the key, on every node that runs an engine. By default no key is sent."""
    check_layout: bool = True
    """Compare the server's prompt tokens with JoyCaption's layout, at start and with every answer."""
    timeout_s: float = Field(default=600, gt=0)
    """Time limit for one request, including the time in the server's queue."""
    retries: int = Field(default=5, ge=0)
    """Retries of one request after 408, 409, 429, 5xx or a lost connection; waits double from 0.5 s to 8 s, with
    jitter."""
    reconnect_timeout_s: float = Field(default=600, ge=0)
    """How long to wait for unreachable servers to come back before the engine counts as dead."""

    @field_validator("urls")
    @classmethod
    def _http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [url for url in urls if not re.match(r"https?://[^/@?]+/\S*$", url)]
        if wrong:
            listed = without_user(", ".join(wrong))
            raise ValueError(f"found {listed}; allowed: http(s)://host:port/v1, without credentials")
        return tuple(url.rstrip("/") for url in urls)


_SET_BY_THE_SERVER = (
    *("max_model_len", "dtype", "quantization", "kv_cache_dtype", "tensor_parallel_size", "num_gpus", "preset"),
    *("max_num_batched_tokens", "gpu_memory_utilization", "cpu_kv_cache_gib", "enforce_eager", "trust_remote_code"),
    "per_accelerator",
)


class GpuPreset(StrEnum):
    """GPUs for which the engine's size is known."""

    AUTO = "auto"
    """Detect the GPU."""
    A100 = "a100"
    """80 GB."""
    A100_40GB = "a100-40gb"
    H100 = "h100"
    H200 = "h200"
    L40S = "l40s"
    RTX_4090 = "rtx-4090"
    A10G = "a10g"


class Replicas(ConfigPart):
    """Bounds of the pool of engine replicas. A number is short for equal bounds."""

    min: int = Field(default=1, ge=1)
    """Replicas that the pool starts with and never goes below."""
    max: int = Field(default=1, ge=1)
    """Replicas that the pool never exceeds."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"min": value, "max": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}; allowed: min <= max")
        return self


class AcceleratorConfig(ConfigPart):
    """Settings of replicas on one type of GPU. They change no caption; null keeps the engine's own value."""

    max_num_seqs: int | None = Field(default=None, ge=1)
    """As `engine.max_num_seqs`."""
    max_num_batched_tokens: int | None = Field(default=None, ge=128)
    """As `engine.max_num_batched_tokens`."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """As `engine.gpu_memory_utilization`."""
    enforce_eager: bool | None = None
    """As `engine.enforce_eager`."""


class EngineConfig(ConfigPart):
    """The engine of each replica, and the size of the pool."""

    kind: EngineKind = EngineKind.VLLM
    """What answers the requests: vLLM in this process, a server (`endpoint`), or `echo` without a model."""
    replicas: Replicas = Replicas()
    """Number of engine replicas, or `{min: 1, max: 8}` for a pool that grows and shrinks."""
    num_gpus: float | None = Field(default=None, ge=0)
    """GPUs per replica. By default `tensor_parallel_size` where the cluster has GPUs, else 0 (CPU build)."""
    accelerator_type: str | None = None
    """Start replicas only on nodes with this type of GPU, as Ray names it: A100, H100, L4. By default on any."""
    per_accelerator: dict[str, AcceleratorConfig] = Field(default_factory=dict)
    """By type of GPU: other settings for replicas there. GPUs per replica and batches in flight stay those of the
    pool."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs over which one replica splits the model."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number format of the weights and activations. Part of the recipe."""
    quantization: str | None = None
    """fp8 stores the language model's layers in fp8 (one scale per channel) and multiplies in fp8 (one scale per
    token); vision tower and projector are not quantized. Any other value is passed to vLLM. Part of the recipe."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """fp8 halves the KV cache, so that a small GPU holds twice the sequences. Part of the recipe."""
    preset: GpuPreset = GpuPreset.AUTO
    """The GPU for which `max_num_seqs`, `max_num_batched_tokens` and the number of readers are chosen; auto detects
    it. Explicit settings override the preset. It changes no caption."""
    max_model_len: int = Field(default=2048, ge=128)
    """Tokens of prompt and caption together. JoyCaption's prompts have 790 to 930, so 2048 leaves 1,100 for text."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Requests decoded together. By default what fits the GPU, at most 256; 64 on a CPU. With an endpoint: requests
    in flight at all URLs together, by default 256. With echo: by default any number."""
    max_num_batched_tokens: int | None = Field(default=None, ge=128)
    """Tokens per engine step, never below max_model_len. By default 16384 from 70 GiB of GPU memory, 8192 from 40 GiB
    and on a CPU, else 4096."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory that vLLM may use."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """CPU build only, refused on a GPU: GiB of RAM for the KV cache."""
    enforce_eager: bool | None = None
    """Skip compilation. By default on for a CPU, off for a GPU."""
    batch_images: int = Field(default=64, ge=1, le=4096)
    """Images of a fragment, the files that are staged. A batch, which travels as a whole, has as many at first and up
    to four times as many later; with `batches_in_flight` always as many."""
    batches_in_flight: int | None = Field(default=None, ge=1)
    """Batches that a replica works on at the same time. By default enough to keep its engine full: those of 6 times
    `max_num_seqs` requests. However many there are, at most twice `max_num_seqs` requests are asked and not staged."""
    max_crashes_per_image: int = Field(default=1, ge=0)
    """How often an image, alone in the engine, may crash it before the image becomes a failed row."""
    max_restarts: int = Field(default=100, ge=0)
    """Engine restarts of one replica, for all images together, before the replica fails."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    echo_latency_s: float = Field(default=0.0, ge=0)
    """`kind: echo` only: duration of each request, to rehearse a run."""
    endpoint: EndpointConfig | None = None
    """`kind: endpoint` only: the servers."""

    @model_validator(mode="after")
    def _endpoint_has_urls(self) -> Self:
        if (self.kind is EngineKind.ENDPOINT) != (self.endpoint is not None):
            raise ValueError(
                f"kind={self.kind} with endpoint {'set' if self.endpoint else 'absent'}; allowed: kind: endpoint "
                "together with endpoint: {urls: [...]}, or neither"
            )
        fields = type(self).model_fields
        conflicting = [
            key
            for key in _SET_BY_THE_SERVER
            if getattr(self, key) != fields[key].get_default(call_default_factory=True)
        ]
        if self.endpoint and conflicting:
            raise ValueError(f"found {', '.join(conflicting)}; with kind: endpoint the server sets these: remove them")
        return self

    @model_validator(mode="after")
    def _echo_has_latency(self) -> Self:
        if self.echo_latency_s and self.kind is not EngineKind.ECHO:
            raise ValueError(f"found echo_latency_s with kind={self.kind}; allowed: only with kind: echo")
        return self

    def on(self, accelerator: str | None) -> EngineConfig:
        """Return the engine of a replica on a GPU of this type."""
        settings = self.per_accelerator.get(accelerator or "", AcceleratorConfig())
        return self.model_copy(update=settings.model_dump(exclude_none=True))
