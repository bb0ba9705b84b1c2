"""Collects the counts of all processes of a run, and tells readers and replicas when the run drains.

No decision about data depends on it. A restarted progress actor has lost its state; a driver that drains sets the
flag again.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.flow.replica_starts import Device, ReplicaStarts, StartLog, device_is_left, occupy
from pipeline.readers import LeftOut
from pipeline.stages.captioning import CaptionStats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Number of images that have passed each stage in this run, and number of replicas."""

    read: int = 0
    dispatched: int = 0
    """Sent to an engine."""
    staged: int = 0
    replicas: int = 0
    replicas_starting: int = 0
    """Their actor runs, and their engine loads the model."""
    in_flight: int = 0
    """With the engines now. The images of a crashed replica are subtracted when it is up again."""
    not_stopped: int = 0
    """Of a run that drains: replicas that may still take a batch."""
    decode_timeouts: int = 0
    """Images that reached `images.timeout_s`: the only progress while a reader fills a batch with them."""
    starts: ReplicaStarts = field(default_factory=ReplicaStarts)
    setups: Mapping[str, int] = field(default_factory=dict[str, int])
    """Number of replicas by what their engine chose for its device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStart:
    """The reply to a reader that starts a shard."""

    times: int
    """Attempts at this shard in this run, this one included: more than one after a reader crashed."""
    stopping: bool


SILENT_S = 60.0
"""A replica without a heartbeat for this long is no longer counted: its pool shrank, or its node was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What a replica sends with each heartbeat."""

    num_asked: int = 0
    """Images that it has sent to its engine since its process started."""
    num_staged: int = 0
    """Images that it has staged since its process started."""
    stopped: bool = False
    """Whether it has learned that the run drains: from then on it asks no more images."""
    stats: CaptionStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """The last report of a replica."""

    in_flight: int
    """Images."""
    up_s: float
    """Seconds since its engine was up."""
    stats: CaptionStats


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDetails:
    """Reported less often than `Counts`. No decision depends on it, not even whether a run is stalled."""

    decode_s: float = 0.0
    """Seconds that readers spent on decoding."""
    replicas: Mapping[str, Replica] = field(default_factory=dict[str, Replica])
    """By actor id."""


class _ProgressActor:
    def __init__(self) -> None:
        self._sums = {"read": 0, "dispatched": 0, "staged": 0, "decode_timeouts": 0}
        self._decode_s = 0.0
        self._in_flight: dict[str, int] = {}
        self._up_at: dict[str, float] = {}
        self._last_heartbeat: dict[str, float] = {}
        self._reports: dict[str, ReplicaReport] = {}
        self._starts = StartLog()
        self._occupants: list[Any] = []
        self._attempts: dict[str, int] = {}
        self._failures: dict[str, str] = {}
        self._left_out: dict[str, tuple[LeftOut, ...]] = {}
        self._stopping = False

    def replica_starting(self, replica: str, device: Device) -> bool:
        """Note that a replica starts its engine; return whether it may."""
        # Its process is a new one, which counts from 0.
        self._in_flight.pop(replica, None)
        self._reports.pop(replica, None)
        return self._starts.begin(replica, device)

    def replica_failed(self, replica: str, device: Device, message: str) -> None:
        if self._starts.fail(replica, device, message):
            self._occupants.append(occupy(device))

    def replica_up(self, replica: str) -> None:
        self._starts.succeed(replica)
        self._in_flight[replica] = 0
        self._up_at[replica] = self._last_heartbeat[replica] = time.monotonic()

    def heartbeat(self, replica: str, report: ReplicaReport) -> bool:
        """Take the counts of a replica; return whether the run drains."""
        before = self._reports.get(replica, ReplicaReport(stats=report.stats))
        self._sums["dispatched"] += report.num_asked - before.num_asked
        self._sums["staged"] += report.num_staged - before.num_staged
        self._reports[replica] = report
        self._in_flight[replica] = report.num_asked - report.num_staged
        self._last_heartbeat[replica] = time.monotonic()
        return self._stopping

    def begin_shard(self, shard: str) -> ShardStart:
        self._attempts[shard] = self._attempts.get(shard, 0) + 1
        return ShardStart(times=self._attempts[shard], stopping=self._stopping)

    def reader_failed(self, shard: str, error: str) -> None:
        self._failures[shard] = error

    def failures(self) -> dict[str, str]:
        return self._failures

    def leave_out(self, shard: str, left_out: tuple[LeftOut, ...]) -> None:
        self._left_out[shard] = left_out

    def left_out(self) -> dict[str, tuple[LeftOut, ...]]:
        return self._left_out

    def read(self, num_images: int, decode_s: float) -> bool:
        self._sums["read"] += num_images
        self._decode_s += decode_s
        return self._stopping

    def decode_timeout(self) -> None:
        self._sums["decode_timeouts"] += 1

    def stop(self) -> None:
        self._stopping = True

    def detail(self) -> ReplicaDetails:
        now = time.monotonic()
        up_s = {replica: now - self._up_at.setdefault(replica, now) for replica in self._in_flight}
        none = ReplicaReport(stats=CaptionStats())
        return ReplicaDetails(
            decode_s=self._decode_s,
            replicas={
                replica: Replica(in_flight=in_flight, up_s=up_s[replica], stats=self._reports.get(replica, none).stats)
                for replica, in_flight in self._in_flight.items()
            },
        )

    def counts(self) -> Counts:
        now = time.monotonic()
        for replica in [replica for replica, last in self._last_heartbeat.items() if now - last > SILENT_S]:
            del self._last_heartbeat[replica]
            self._in_flight.pop(replica, None)
        reports = {replica: self._reports[replica] for replica in self._in_flight.keys() & self._reports.keys()}
        setups = Counter(report.stats.engine.setup for report in reports.values())
        del setups[""]
        return Counts(
            **self._sums,
            replicas=len(self._in_flight),
            replicas_starting=len(self._starts.starting),
            in_flight=sum(self._in_flight.values()),
            not_stopped=sum(not report.stopped for report in reports.values()) if self._stopping else 0,
            starts=self._starts.state(hopeless=not self._in_flight and self._starts.is_hopeless(device_is_left)),
            setups=dict(sorted(setups.items())),
        )


ANSWER_TIMEOUT_S = 10.0


def start_progress_actor() -> Any:  # noqa: ANN401 - Ray's handles have no useful type
    """Start the progress actor on the driver's node: it has no purpose without the driver."""
    driver_node: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # No CPU of its own: on a cluster of one CPU a reader would otherwise block it for ever. No task events: each of a
    # thousand replicas calls it once a second, and Ray's GCS would keep 4 kB of each call.
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "enable_task_events": False}
    return ray.remote(**options, scheduling_strategy=driver_node)(_ProgressActor).remote()


def read_counts(progress_actor: Any) -> Counts | None:  # noqa: ANN401 - see above
    """Return the counts; None if the progress actor does not answer, which must not end a run."""
    return result_or_none(progress_actor.counts.remote())


def read_detail(progress_actor: Any) -> ReplicaDetails | None:  # noqa: ANN401 - see above
    """Return the detail; None as for the counts."""
    return result_or_none(progress_actor.detail.remote())


def read_failures(progress_actor: Any) -> dict[str, str]:  # noqa: ANN401 - see above
    """Return the errors of failed readers, by shard."""
    return result_or_none(progress_actor.failures.remote()) or {}


def read_left_out(progress_actor: Any) -> dict[str, tuple[LeftOut, ...]]:  # noqa: ANN401 - see above
    """Return the files of shards that are images but not rows, by shard."""
    return result_or_none(progress_actor.left_out.remote()) or {}


def result_or_none(reply: Any) -> Any:  # noqa: ANN401 - see above
    """Wait for a reply of the progress actor; None if it does not reply."""
    try:
        return ray.get(reply, timeout=ANSWER_TIMEOUT_S)
    except (GetTimeoutError, RayActorError) as err:
        log.warning("the progress actor does not answer: %r", err)
        return None
