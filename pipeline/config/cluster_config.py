"""Which Ray cluster does the work, and when a run on it is stopped."""

from pydantic import Field

from pipeline.config.base import ConfigPart


class ClusterConfig(ConfigPart):
    """Which Ray cluster does the work, and when a run on it counts as stalled."""

    address: str | None = None
    """Ray address. By default RAY_ADDRESS, else a Ray that this process starts. `local` always starts one."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Only for a Ray that this process starts: logical CPUs, by default all."""
    object_store_gib: float | None = Field(default=None, gt=0)
    """Only for a Ray that this process starts: GiB of shared memory for batches in flight."""
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Only for a Ray that this process starts: port on 127.0.0.1 that Prometheus scrapes; without it no metrics are
    exported. A cluster has its own."""
    stall_timeout_s: float = Field(default=1800, gt=0)
    """A run without any progress for this long ends, and names the stage that stalled."""


class CaptionClusterConfig(ClusterConfig):
    """The cluster of a captioning job."""

    max_concurrent_reads: int | None = Field(default=None, ge=1)
    """Number of shards that are read and decoded at the same time. By default one per CPU of the cluster; with GPUs
    at most as many as the GPUs consume (`pipeline.engines.sizing`)."""
    drain_timeout_s: float = Field(default=25, ge=0)
    """After SIGTERM or SIGINT: time limit for requests in flight and commits. Kubernetes sends SIGKILL 30 s after
    SIGTERM, and Ray needs some seconds to stop; AWS takes a spot node 120 s after its notice."""
