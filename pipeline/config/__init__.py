"""A job as one checked record: the YAML file, overridden by the environment, overridden by the command line."""

from pipeline.config.captions import Length, RequestConfig, SlotConfig, WordsDistribution
from pipeline.config.job import (
    ClusterConfig,
    EngineConfig,
    EngineKind,
    ImagesConfig,
    JobConfig,
    ModelConfig,
    Replicas,
    SamplingConfig,
    SourceConfig,
)
from pipeline.config.load import ENV_PREFIX, load_job, parse_job
from pipeline.config.quality import (
    Action,
    Categories,
    Openings,
    QualityConfig,
    RepairConfig,
    RuleActions,
    Script,
    TagsConfig,
    Truncated,
    Underscores,
    UserRule,
)

__all__ = [
    "ENV_PREFIX",
    "Action",
    "Categories",
    "ClusterConfig",
    "EngineConfig",
    "EngineKind",
    "ImagesConfig",
    "JobConfig",
    "Length",
    "ModelConfig",
    "Openings",
    "QualityConfig",
    "RepairConfig",
    "Replicas",
    "RequestConfig",
    "RuleActions",
    "SamplingConfig",
    "Script",
    "SlotConfig",
    "SourceConfig",
    "TagsConfig",
    "Truncated",
    "Underscores",
    "UserRule",
    "WordsDistribution",
    "load_job",
    "parse_job",
]
