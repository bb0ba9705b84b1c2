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
from pipeline.config.load import load_job, parse_job

__all__ = [
    "ClusterConfig",
    "EngineConfig",
    "EngineKind",
    "ImagesConfig",
    "JobConfig",
    "Length",
    "ModelConfig",
    "Replicas",
    "RequestConfig",
    "SamplingConfig",
    "SlotConfig",
    "SourceConfig",
    "WordsDistribution",
    "load_job",
    "parse_job",
]
