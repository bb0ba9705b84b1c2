"""A captioning job: its sections, and the checks that concern two of them."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import AS_LIST, ConfigPart, Url
from pipeline.config.captions_config import SlotConfig, check_slot_names
from pipeline.config.cluster_config import CaptionClusterConfig
from pipeline.config.engine_config import EngineConfig, EngineKind
from pipeline.config.images_config import ImagesConfig
from pipeline.config.log_format import LogFormat
from pipeline.config.model_config import ModelConfig
from pipeline.config.prompt_fields_config import FAIL, PromptFieldConfig, placeholder_of, slot_of
from pipeline.config.quality_config import OF_THE_TEXTS, QualityConfig
from pipeline.config.recipe_form import added
from pipeline.config.sampling_config import SamplingConfig
from pipeline.config.source_config import SourceConfig


class JobConfig(ConfigPart):
    """A captioning job. `load_job` builds it."""

    source: SourceConfig
    """Where the images are."""
    output: Url = Field(min_length=1)
    """Folder of the captions: a local path, s3:// or gs://."""
    reuse: Annotated[tuple[Url, ...], AS_LIST] = ()
    """Outputs of the same recipe over the same shards, such as a first look with `source.limit`: their `ok` captions
    are taken over, and no request is sent for them."""
    model: ModelConfig
    """Which model captions the images."""
    captions: Annotated[tuple[SlotConfig, ...], AS_LIST] = Field(min_length=1)
    """The captions of every image: one slot each."""
    prompt_fields: dict[str, PromptFieldConfig] = added(default_factory=dict)
    """By field of the source row that a prompt uses: how it is worded. The field of a slot of `source.captions` is
    `captions.SLOT`."""
    sampling: SamplingConfig = SamplingConfig()
    """How the model samples its text."""
    engine: EngineConfig = EngineConfig()
    """What runs the model."""
    images: ImagesConfig = ImagesConfig()
    """How images are decoded."""
    quality: QualityConfig = QualityConfig()
    """Which texts become captions."""
    cluster: CaptionClusterConfig = CaptionClusterConfig()
    """Which Ray cluster does the work."""
    logs: LogFormat = LogFormat.TEXT
    """How log lines are written: text, or json with one object a line."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the mix, the word counts and the sampling seeds."""

    _slots_once = field_validator("captions")(check_slot_names)

    @property
    def field_policies(self) -> dict[str, PromptFieldConfig]:
        """How each field is worded that a prompt uses."""
        requests = [request for slot in self.worded_slots for _, request in slot.requests]
        used = dict.fromkeys(field for request in requests for field in request.fields_used)
        return {field: self.prompt_fields.get(field, PromptFieldConfig()) for field in used}

    @property
    def worded_slots(self) -> tuple[SlotConfig, ...]:
        """The slots as prompts are worded: in a chained job `{long}` is the field `captions.long` of a row."""
        if self.source.captions is None:
            return self.captions
        return tuple(slot.with_long_names() for slot in self.captions)

    @property
    def parent_needs(self) -> tuple[frozenset[str], ...]:
        """Of each request of a chained job, the parent's slots without whose caption it is not sent."""
        if self.source.captions is None:
            return ()
        policies = self.field_policies
        return tuple(
            frozenset(
                slot
                for field in request.fields_used
                if (slot := slot_of(field)) is not None and policies[field].missing == FAIL
            )
            for worded in self.worded_slots
            for _, request in worded.requests
        )

    @model_validator(mode="after")
    def _fields_are_used(self) -> Self:
        used = self.field_policies
        unused = sorted(set(self.prompt_fields) - set(used))
        if unused:
            raise ValueError(
                f"prompt_fields.{unused[0]}: no prompt, name or extra sentence has {{source.{unused[0]}}}; used are: "
                f"{', '.join(used) or 'none'}"
            )
        if used and self.engine.endpoint is not None and not self.engine.endpoint.check_layout:
            raise ValueError(
                f"engine.endpoint.check_layout=False with {{source.{next(iter(used))}}} in a prompt; allowed: true, "
                "since a server would take special tokens in a value for markup"
            )
        return self

    @model_validator(mode="after")
    def _rules_have_fields(self) -> Self:
        used, quality = [placeholder_of(field) for field in self.field_policies], self.quality
        on = [name for name in ("mentions", *OF_THE_TEXTS) if name in quality.actions]
        if on and not used:
            raise ValueError(
                f"quality.actions.{on[0]} is on, and no prompt has a field of the source row, such as {{source.tags}}; "
                "allowed: off"
            )
        unknown = [name for name in (*quality.kept.texts, *quality.kept.fields) if name not in used]
        if unknown:
            raise ValueError(
                f"quality.kept: no prompt has {{{unknown[0]}}}; used are: {', '.join(used)}; write the name as between "
                "the braces"
            )
        return self

    @model_validator(mode="after")
    def _grammar_has_a_model(self) -> Self:
        named = [slot.slot for slot in self.captions if slot.schema]
        if named and self.engine.kind is EngineKind.ECHO:
            raise ValueError(
                f"captions: {named[0]} has a schema, and engine.kind: echo has no model that a grammar could guide; "
                "allowed: vllm or endpoint (model: standin runs on any machine)"
            )
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        repeated = [slot.slot for slot in self.captions if slot.samples > 1]
        if repeated and not self.sampling.temperature:
            raise ValueError(
                f"captions: {', '.join(repeated)} has several samples at sampling.temperature=0, which gives the same "
                "caption each time; allowed: samples: 1, or a temperature above 0"
            )
        return self

    @model_validator(mode="after")
    def _retry_changes_something(self) -> Self:
        retry, sampling = self.quality.retry, self.sampling
        same_penalty = retry.repetition_penalty in (None, sampling.repetition_penalty)
        if retry.attempts and not sampling.temperature and not retry.temperature_add and same_penalty:
            raise ValueError(
                "quality.retry would send the same greedy request again; allowed: attempts: 0, "
                "temperature_add above 0, or another repetition_penalty than sampling's"
            )
        return self
