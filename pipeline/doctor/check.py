"""The records of a check: what it knows, what it found, and where it runs. All of them pickle."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config import EngineKind, JobConfig
from schemas.shard import Shard


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """A run works, but slower or with less room than it should have."""
    FAILED = "failed"
    """A run would fail, or would write what it should not."""


class Scope(StrEnum):
    """What a check is about."""

    MACHINE = "machine"
    JOB = "job"
    """Left out if there is no job."""


class Place(StrEnum):
    """Where a check runs."""

    DRIVER = "driver"
    """Once, where the command runs: what the driver of a run does."""
    NODE = "node"
    """On each node."""
    ENGINE = "engine"
    """On each node that would host replicas, after all other checks and only if they passed: it starts an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the listing of the source says to the checks on the nodes."""

    smallest: Shard
    largest_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a check may ask about the node and the job."""

    job: JobConfig | None = None
    needs_gpu: bool = False
    """Ray counts GPUs on this node, or the job asks for one."""
    num_readers: int = 1
    """Shards that this node may read at the same time."""
    survey: Survey | None = None
    """None: there is no job, or its source cannot be listed."""
    mark: str | None = None
    """A file in the output that every node must see, if the output is a folder and there are several nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check on one node."""

    level: Level
    message: str
    """What was found, in one line."""
    remedy: str = ""
    """What to do; empty if the check is ok, or if the message already says it."""
    survey: Survey | None = None
    """Of the check that lists the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One entry of the table."""

    name: str
    scope: Scope
    place: Place
    run: Callable[[Context], Finding]
    """A function at the top of its module. A `PipelineError` that it raises is a failed check with this message."""
    timeout_s: float = 60
    """After it the check has failed and its process is killed."""
    needs: Callable[[Context], bool] = lambda _: True
    """Whether the check has a meaning; if not, it is left out."""

    def applies(self, context: Context) -> bool:
        return (self.scope is Scope.MACHINE or context.job is not None) and self.needs(context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finding with its check and its node."""

    node: str
    check: str
    finding: Finding


def ok(message: str) -> Finding:
    """Return the finding of a check that has nothing to say but what it saw."""
    return Finding(level=Level.OK, message=message)


def warning(message: str, remedy: str) -> Finding:
    """Return the finding of something that a run can live with."""
    return Finding(level=Level.WARNING, message=message, remedy=remedy)


def failed(message: str, remedy: str = "") -> Finding:
    """Return the finding of something that a run would fail of."""
    return Finding(level=Level.FAILED, message=message, remedy=remedy)


def job_of(context: Context) -> JobConfig:
    """Return the job of a check whose scope is the job."""
    assert context.job is not None
    return context.job


def hosts_model(context: Context) -> bool:
    """Whether the replicas of the job load the model themselves."""
    return context.job is not None and context.job.engine.kind is EngineKind.VLLM
