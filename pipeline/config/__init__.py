"""A checked config: a YAML file, overridden by the environment, overridden by the command line."""

from pipeline.config.base import without_secrets
from pipeline.config.captions_config import (
    ExistingAction,
    ExistingConfig,
    RequestConfig,
    SlotConfig,
    WordsDistribution,
)
from pipeline.config.cluster_config import ClusterConfig
from pipeline.config.corpus_config import CorpusConfig
from pipeline.config.corpus_presets import Preset, Rating
from pipeline.config.engine_config import EndpointConfig, EngineConfig, EngineKind, GpuPreset
from pipeline.config.images_config import DecodeMode, ImagesConfig
from pipeline.config.job_config import JobConfig
from pipeline.config.load import ENV_PREFIX, load_corpus, load_job, parse_job
from pipeline.config.log_format import LogFormat
from pipeline.config.model_config import ModelConfig
from pipeline.config.prompt_fields_config import FieldOrder, PromptFieldConfig
from pipeline.config.quality_config import (
    Action,
    Categories,
    ClipConfig,
    KeptConfig,
    Openings,
    QualityConfig,
    Script,
    TagsConfig,
    Truncated,
    Underscores,
    UserRule,
)
from pipeline.config.render_config import (
    LengthConfig,
    Persons,
    QualityBy,
    RecordTagsConfig,
    RenderConfig,
    Steps,
    StyleConfig,
    TaskTables,
    WordsConfig,
)
from pipeline.config.sampling_config import SamplingConfig
from pipeline.config.source_config import DuplicatesConfig, SourceConfig
from pipeline.config.where_config import Condition, FieldTest, Range

__all__ = [
    "ENV_PREFIX",
    "Action",
    "Categories",
    "ClipConfig",
    "ClusterConfig",
    "Condition",
    "CorpusConfig",
    "DecodeMode",
    "DuplicatesConfig",
    "EndpointConfig",
    "EngineConfig",
    "EngineKind",
    "ExistingAction",
    "ExistingConfig",
    "FieldOrder",
    "FieldTest",
    "GpuPreset",
    "ImagesConfig",
    "JobConfig",
    "KeptConfig",
    "LengthConfig",
    "LogFormat",
    "ModelConfig",
    "Openings",
    "Persons",
    "Preset",
    "PromptFieldConfig",
    "QualityBy",
    "QualityConfig",
    "Range",
    "Rating",
    "RecordTagsConfig",
    "RenderConfig",
    "RequestConfig",
    "SamplingConfig",
    "Script",
    "SlotConfig",
    "SourceConfig",
    "Steps",
    "StyleConfig",
    "TagsConfig",
    "TaskTables",
    "Truncated",
    "Underscores",
    "UserRule",
    "WordsConfig",
    "WordsDistribution",
    "load_corpus",
    "load_job",
    "parse_job",
    "without_secrets",
]
