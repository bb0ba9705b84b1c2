"""The parts of a job, each field with its unit, range and reason."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.base import ConfigPart, Url, without_user
from pipeline.config.captions_config import SlotConfig, check_slot_names
from pipeline.config.quality_config import QualityConfig

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "MPO")
"""Pillow's names of what may be decoded. EPS is not among them, since it would start Ghostscript."""


class SourceConfig(ConfigPart):
    """Which shards, and which of their fields."""

    urls: tuple[Url, ...] = Field(min_length=1)
    """Folders, globs or shards; local paths or any fsspec URL. Tar (plain or gzip), zip or Parquet; a folder
    without any of these is one of loose images."""
    split: str | None = None
    """Only shards of this split, by the names of Hugging Face data sets: `data/train-00000-of-00004.parquet`."""
    images_per_shard: int = Field(default=1000, ge=1, le=100_000)
    """Folders of loose images: so many sorted names are one shard."""
    image_column: str | None = None
    """Parquet: the column of encoded images; by default detected by name and type."""
    key_column: str | None = None
    """Parquet: the column that becomes `key`; by default `key`, `__key__`, `id` or the image's path."""
    carry: tuple[str, ...] = ()
    """Fields of the source row to keep in the caption row's `source`: columns, keys of the `.json`
    member, or extensions of text members such as `txt`; `*` keeps all but image bytes."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        if isinstance(value, str):
            return {"urls": [value]}
        return {"urls": value} if isinstance(value, list | tuple) else value


class ModelConfig(ConfigPart):
    """Which weights, and how they were taught to be asked."""

    id: str
    """`standin`, a hub id such as fancyfeast/llama-joycaption-beta-one-hf-llava, or a local folder."""
    revision: str | None = None
    """The hub's commit or tag. Pin it for production."""
    generation: str | None = None
    """alpha-one, alpha-two or beta-one; by default read off the id."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"id": value} if isinstance(value, str) else value


class SamplingConfig(ConfigPart):
    """How text is drawn. The defaults are the author's own for every generation."""

    temperature: float = Field(default=0.6, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    """0 keeps all tokens."""
    repetition_penalty: float = Field(default=1.0, ge=0.5, le=2)
    """1 is none, as in all of the author's code."""
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    """Tokens per caption; by default the generation's (alpha 300, beta-one 512)."""
    stop_loops: bool = True
    """End an answer that only repeats itself, rejected: the tokens up to `max_tokens` are saved."""
    seeded: bool = True
    """Each request has a seed of its own, so that its text can be drawn again. Without, `seed` is null in the rows
    and vLLM draws a whole batch at once."""


class EngineKind(StrEnum):
    """What answers the requests."""

    VLLM = "vllm"
    ENDPOINT = "endpoint"
    """An OpenAI-compatible server, such as `vllm serve`; nothing of the model is loaded here."""
    ECHO = "echo"
    """No model: names the mean colour. For trying a config and for measuring the pipeline alone."""


class EndpointConfig(ConfigPart):
    """Servers that speak OpenAI's chat API, all of the same model."""

    urls: tuple[str, ...] = Field(min_length=1)
    """Such as http://gpu-1:8000/v1; an image's requests go to one of them together."""
    model: str | None = None
    """The name under which the servers know the model; by default `model.id`."""
    api_key_env: str | None = None
    """The environment variable that holds the key, wherever an engine runs; by default no key is sent."""
    check_layout: bool = True
    """Compare the server's prompt tokens with JoyCaption's layout, at start and with every answer."""
    timeout_s: float = Field(default=600, gt=0)
    """For one request, queueing at the server included."""
    retries: int = Field(default=5, ge=0)
    """Of one request, after 408, 409, 429, 5xx or a lost connection; waits double from 0.5 s to 8 s, with jitter."""
    patience_s: float = Field(default=600, ge=0)
    """How long to wait for the servers to come back before the engine counts as dead."""

    @field_validator("urls")
    @classmethod
    def _http(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [url for url in urls if not re.match(r"https?://[^/@?]+/\S*$", url)]
        if wrong:
            found = without_user(", ".join(wrong))
            raise ValueError(f"found {found}; allowed: http(s)://host:port/v1, no credentials in it")
        return tuple(url.rstrip("/") for url in urls)


_NOT_OF_AN_ENDPOINT = (
    "max_model_len",
    "dtype",
    "quantization",
    "tensor_parallel_size",
    "num_gpus",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "cpu_kv_cache_gib",
    "enforce_eager",
    "trust_remote_code",
    "kv_cache_dtype",
    "preset",
    "per_accelerator",
)


class GpuPreset(StrEnum):
    """The GPUs that an engine can be sized to by name."""

    AUTO = "auto"
    """What the replica finds."""
    A100 = "a100"
    """80 GB."""
    A100_40GB = "a100-40gb"
    H100 = "h100"
    H200 = "h200"
    L40S = "l40s"
    RTX_4090 = "rtx-4090"
    A10G = "a10g"


class Replicas(ConfigPart):
    """Bounds of the pool of engine actors."""

    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
        return {"min": value, "max": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is above max={self.max}; allowed: min <= max")
        return self


class CardConfig(ConfigPart):
    """What a replica does otherwise on one type of card: only what changes no caption, null for the engine's own."""

    max_num_seqs: int | None = Field(default=None, ge=1)
    max_num_batched_tokens: int | None = Field(default=None, ge=128)
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    enforce_eager: bool | None = None


class EngineConfig(ConfigPart):
    """The engine of each replica and the size of the pool."""

    kind: EngineKind = EngineKind.VLLM
    replicas: Replicas = Replicas()
    num_gpus: float | None = Field(default=None, ge=0)
    """GPUs per replica; by default `tensor_parallel_size` where the cluster has GPUs, else 0 (CPU build)."""
    accelerator_type: str | None = None
    """Replicas only on nodes of this type, in Ray's word for it: A100, H100, L4; by default on any."""
    per_accelerator: dict[str, CardConfig] = Field(default_factory=dict)
    """By type: what replicas do otherwise there. GPUs per replica and batches in flight are those of the pool."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: str | None = None
    """fp8 keeps the language model's layers in fp8, scaled by channel, and multiplies in fp8, scaled by token;
    tower and projector stay. Anything else is passed to vLLM as it stands. Part of the recipe."""
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """fp8 halves the KV cache: twice the sequences on a small card. Part of the recipe."""
    preset: GpuPreset = GpuPreset.AUTO
    """The GPU that `max_num_seqs`, `max_num_batched_tokens` and the number of readers are sized to; auto reads
    the device. Keys that are given beat it. It changes no caption."""
    max_model_len: int = Field(default=2048, ge=128)
    """Tokens of prompt and caption. JoyCaption's prompts have 790 to 930, so 2048 leaves 1,100 for text."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Requests decoded together; by default what the GPU has room for, at most 256; 64 on a CPU. Endpoint: in
    flight at all URLs together, by default 256."""
    max_num_batched_tokens: int | None = Field(default=None, ge=128)
    """Tokens per engine step, never below max_model_len; by default 16384 from 70 GiB on, 8192 from 40 GiB on and
    on a CPU, else 4096."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """CPU build only, refused on a GPU: GiB of RAM for the KV cache."""
    enforce_eager: bool | None = None
    """Skip compilation; by default on for a CPU, off for a GPU."""
    batch_images: int = Field(default=64, ge=1, le=4096)
    """Images that travel together and become one fragment: the most that one task can lose.
    Occupancy hardly depends on it (32 x 4 in flight and 256 x 2 both keep 97 % busy); the driver's
    and the actors' CPU per image falls by a third from 32 to 64 (measured)."""
    batches_in_flight: int | None = Field(default=None, ge=1)
    """Batches that a replica works on at once; by default enough for twice `max_num_seqs` requests."""
    max_deaths_per_image: int = Field(default=1, ge=0)
    """How often an image, alone in the engine, may take it down before it becomes a failed row."""
    max_restarts: int = Field(default=100, ge=0)
    """Engine restarts of one replica, all images together, before it gives up."""
    trust_remote_code: bool = False
    echo_latency_s: float = Field(default=0.0, ge=0)
    """Echo only: seconds that each request takes, to rehearse a run."""
    endpoint: EndpointConfig | None = None
    """With `kind: endpoint` only."""

    @model_validator(mode="after")
    def _endpoint_has_urls(self) -> Self:
        if (self.kind is EngineKind.ENDPOINT) != (self.endpoint is not None):
            raise ValueError(
                f"kind={self.kind} with endpoint {'set' if self.endpoint else 'absent'}; allowed: kind: endpoint "
                "together with endpoint: {urls: [...]}, or neither"
            )
        fields = type(self).model_fields
        theirs = [
            key
            for key in _NOT_OF_AN_ENDPOINT
            if getattr(self, key) != fields[key].get_default(call_default_factory=True)
        ]
        if self.endpoint and theirs:
            raise ValueError(f"found {', '.join(theirs)}; with kind: endpoint these are the server's own settings")
        return self

    @model_validator(mode="after")
    def _echo_has_latency(self) -> Self:
        if self.echo_latency_s and self.kind is not EngineKind.ECHO:
            raise ValueError(f"found echo_latency_s with kind={self.kind}; allowed: with kind: echo alone")
        return self

    def on(self, accelerator: str | None) -> EngineConfig:
        """Return the engine of a replica on a card of this type."""
        card = self.per_accelerator.get(accelerator or "", CardConfig())
        return self.model_copy(update=card.model_dump(exclude_none=True))


class ImagesConfig(ConfigPart):
    """How bytes become pixels."""

    formats: tuple[str, ...] = FORMATS
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Width times height in the header, before anything is decoded. Each reader needs 5 bytes a pixel for
    RGB, 9 for RGBA, 12 for 16-bit grey and up to 22 for lines one pixel wide (measured at 49 million)."""
    max_bytes: int = Field(default=256 << 20, ge=1)
    """Length of the encoded image."""
    timeout_s: float = Field(default=60, ge=0.1, le=86_400)
    """How long the decoding of one image may take before it is a failed row (`decode_timeout`). Keep it well below
    `cluster.stall_timeout_s`. It is not in the recipe: what is decoded in time has the same pixels."""
    background: tuple[
        Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
    ] = (255, 255, 255)
    """RGB under transparent pixels."""
    apply_exif_orientation: bool = True

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(formats) - set(FORMATS))
        if unknown or not formats:
            raise ValueError(f"found {', '.join(unknown) or 'none'}; allowed: {', '.join(FORMATS)}")
        return formats


class ClusterConfig(ConfigPart):
    """Which Ray works, and when a run on it counts as stuck."""

    address: str | None = None
    """Ray address; by default RAY_ADDRESS, else a Ray of this process's own."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Only for a Ray of one's own: logical CPUs, by default all."""
    object_store_gib: float | None = Field(default=None, gt=0)
    """Only for a Ray of one's own: shared memory for batches in flight."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Only for a Ray of one's own: where Prometheus may scrape it, on 127.0.0.1. A cluster has ports of its own."""
    stall_timeout_s: float = Field(default=1800, gt=0)
    """Without any progress for so long, the run ends and names the stage that stands still."""


class JobClusterConfig(ClusterConfig):
    """What captioning asks of its Ray besides."""

    readers: int | None = Field(default=None, ge=1)
    """Shards read and decoded at once; by default as many as the cluster has CPUs, with GPUs at most what they
    need (`pipeline.engines.sizing`)."""
    grace_s: float = Field(default=25, ge=0)
    """After SIGTERM or SIGINT: how long requests in flight and commits may take to end. Kubernetes kills
    30 s after it asked, and Ray takes some seconds to end; AWS takes a spot node 120 s after its notice."""


class LogFormat(StrEnum):
    """How log lines look: the driver's below logs/ and those of Ray's workers."""

    TEXT = "text"
    JSON = "json"
    """One object a line, with the names of the standard library's log record."""


def _as_list(value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw YAML
    return [value] if isinstance(value, dict) else value


class JobConfig(ConfigPart):
    """A whole job. Built by `load_job`; every field is final."""

    source: SourceConfig
    output: Url = Field(min_length=1)
    model: ModelConfig
    captions: Annotated[tuple[SlotConfig, ...], BeforeValidator(_as_list)] = Field(min_length=1)
    sampling: SamplingConfig = SamplingConfig()
    engine: EngineConfig = EngineConfig()
    images: ImagesConfig = ImagesConfig()
    quality: QualityConfig = QualityConfig()
    cluster: JobClusterConfig = JobClusterConfig()
    logs: LogFormat = LogFormat.TEXT
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Draws the mix, the word counts and the sampling seeds."""

    _slots_once = field_validator("captions")(check_slot_names)

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        several = [slot.slot for slot in self.captions if slot.samples > 1]
        if several and not self.sampling.temperature:
            raise ValueError(
                f"captions: {', '.join(several)} asks for several samples at sampling.temperature=0, which draws the "
                "same caption each time; allowed: samples: 1, or a temperature above 0"
            )
        return self

    @model_validator(mode="after")
    def _repair_changes_something(self) -> Self:
        repair, sampling = self.quality.repair, self.sampling
        penalty = repair.repetition_penalty
        same = not repair.temperature_add and penalty in (None, sampling.repetition_penalty)
        if repair.attempts and not sampling.temperature and same:
            raise ValueError(
                "quality.repair would ask the same greedy question again; allowed: attempts: 0, "
                "temperature_add above 0, or another repetition_penalty than sampling's"
            )
        return self
