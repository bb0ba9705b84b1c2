"""What Prometheus can ask of a run: every figure is published by the driver, through Ray's own metrics.

Readers are tasks whose processes come and go, so what they and the engines count goes through the progress actor.
One process then publishes some fifty values every five seconds, 7 us each (measured). Ray exports them with the
prefix `ray_`, counters with the suffix `_total`, on the metrics port of the driver's node. docs/watching.md
lists them; the dashboard and the alerts in infra/observability ask for nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.flow.progress import Snapshot
from pipeline.flow.progress_actor import Counts, Replica, ReplicaDetails

if TYPE_CHECKING:
    from pipeline.flow.driver import RunResult

EVERY_S = 5.0

COMMIT_BOUNDS_S = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]

Tags = tuple[tuple[str, str], ...]

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "images": ("Images that passed a stage: read, asked, staged; resumed are those of earlier runs", ("stage",)),
    "captions": ("Caption rows staged or taken over", ("status",)),
    "shards": ("Shards that ended: committed, lost to another run, quarantined", ("outcome",)),
    "decode_seconds": ("Seconds that readers spent on decoding", ()),
    "questions": (
        "Questions answered by the engines: first ones, and repairs of rejected answers",
        ("kind", "replica"),
    ),
    "tokens": ("Tokens of answered prompts, the image's included, and of captions", ("kind", "replica")),
    "prefix_tokens": ("Prompt tokens looked up in vLLM's prefix cache, and found there", ("kind", "replica")),
    "preemptions": ("Requests that vLLM put back because the KV cache was full", ("replica",)),
    "engine_restarts": ("Engines started again after they died", ("replica",)),
    "replica_seconds": ("Seconds that replicas were up", ("replica",)),
    "gpu_seconds": ("The same, times the GPUs of a replica", ("replica",)),
}
"""Name without prefix: what it counts, and its tags beside `output`."""

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "up": ("1 while the driver lives and works", ()),
    "queue_images": ("Images that wait: decoded, for a replica; engines, for an answer", ("queue",)),
    "commits_under_way": ("Shards that are being committed", ()),
    "replicas": ("Engines that are up, and those of them that have no image", ("state",)),
    "requests": ("Requests in an engine", ("state", "replica")),
    "kv_cache_used": ("Share of the KV cache in use, 0 to 1", ("replica",)),
    "source_bytes": ("Bytes of the source, planned and done, earlier runs included", ("state",)),
    "shards_planned": ("Shards of the plan", ()),
    "eta_seconds": ("Seconds left at the rate of the last minute; absent without a rate", ()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsInput:
    """All that is published, as the driver knows it at one moment."""

    snapshot: Snapshot
    counts: Counts
    detail: ReplicaDetails
    outcome: RunResult
    commits_under_way: int
    gpus_per_replica: float


Value = tuple[str, Mapping[str, str], float]


def counter_values(facts: MetricsInput) -> Iterator[Value]:
    """Yield name, tags and sum of every counter."""
    counts, outcome = facts.counts, facts.outcome
    stages = {"read": counts.read, "asked": counts.asked, "staged": counts.staged, "resumed": outcome.images_resumed}
    for stage, images in stages.items():
        yield "images", {"stage": stage}, images
    for status, rows in facts.snapshot.statuses.items():
        yield "captions", {"status": status}, rows
    ended = {
        "committed": outcome.shards_committed,
        "lost": len(outcome.shards_lost),
        "quarantined": len(outcome.shards_quarantined),
    }
    for how, shards in ended.items():
        yield "shards", {"outcome": how}, shards
    yield "decode_seconds", {}, facts.detail.decode_s
    for name, replica in facts.detail.replicas.items():
        for metric, tags, value in _of_replica(replica, facts.gpus_per_replica):
            yield metric, {**tags, "replica": name}, value


def _of_replica(replica: Replica, gpus: float) -> Iterator[Value]:
    done, engine = replica.stats, replica.stats.engine
    yield "questions", {"kind": "first"}, done.questions - done.repairs
    yield "questions", {"kind": "repair"}, done.repairs
    yield "tokens", {"kind": "prompt"}, done.prompt_tokens
    yield "tokens", {"kind": "caption"}, done.caption_tokens
    yield "prefix_tokens", {"kind": "looked_up"}, engine.prefix_tokens
    yield "prefix_tokens", {"kind": "found"}, engine.prefix_hits
    yield "preemptions", {}, engine.preemptions
    yield "engine_restarts", {}, done.restarts
    yield "replica_seconds", {}, replica.up_s
    yield "gpu_seconds", {}, replica.up_s * gpus


def gauge_values(facts: MetricsInput) -> Iterator[Value]:
    """Yield name, tags and value of every gauge."""
    counts, snapshot, replicas = facts.counts, facts.snapshot, facts.detail.replicas
    yield "up", {}, 1
    yield "queue_images", {"queue": "decoded"}, max(0, counts.read - counts.asked)
    yield "queue_images", {"queue": "engines"}, counts.in_flight
    yield "commits_under_way", {}, facts.commits_under_way
    yield "replicas", {"state": "up"}, len(replicas)
    yield "replicas", {"state": "idle"}, sum(not replica.in_flight for replica in replicas.values())
    for name, replica in replicas.items():
        engine = replica.stats.engine
        yield "requests", {"state": "running", "replica": name}, engine.requests_running
        yield "requests", {"state": "waiting", "replica": name}, engine.requests_waiting
        yield "kv_cache_used", {"replica": name}, engine.kv_cache_used
    yield "source_bytes", {"state": "planned"}, snapshot.bytes_total
    yield "source_bytes", {"state": "done"}, snapshot.bytes_done
    yield "shards_planned", {}, snapshot.shards
    if snapshot.eta_s is not None:
        yield "eta_seconds", {}, snapshot.eta_s


class Increments:
    """Turns sums into what they grew by."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, Tags], float] = {}

    def of(self, name: str, tags: Mapping[str, str], total: float) -> float:
        """Return the growth since the last call; an actor or a tally that died counts anew, from zero."""
        key = (name, tuple(tags.items()))
        before = self._counted.get(key, 0.0)
        self._counted[key] = total
        return total - before if total >= before else total


class Metrics:
    """Publishes the figures of one run; needs a Ray that is connected."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._counters = {
            name: Counter(f"joyfleet_{name}", what, _keys(tags)) for name, (what, tags) in COUNTERS.items()
        }
        self._gauges = {name: Gauge(f"joyfleet_{name}", what, _keys(tags)) for name, (what, tags) in GAUGES.items()}
        about = "Seconds from the last receipt of a shard to its commit"
        self._commits = Histogram("joyfleet_commit_seconds", about, COMMIT_BOUNDS_S, _keys(()))
        self._increments = Increments()
        self._shown: set[tuple[str, Tags]] = set()
        self._at = -EVERY_S

    @property
    def due(self) -> bool:
        """Whether it is time to publish again."""
        return time.monotonic() - self._at >= EVERY_S

    def publish(self, facts: MetricsInput) -> None:
        self._at = time.monotonic()
        for name, tags, total in counter_values(facts):
            more = self._increments.of(name, tags, total)
            if more > 0:  # Ray refuses an increment of nothing
                self._counters[name].inc(more, {"output": self._output, **tags})
        shown = {(name, tuple(tags.items())): value for name, tags, value in gauge_values(facts)}
        # A gauge stays at its last value: of a replica that is gone it must not be what it was.
        for (name, tags), value in {**dict.fromkeys(self._shown - shown.keys(), 0.0), **shown}.items():
            self._gauges[name].set(value, {"output": self._output, **dict(tags)})
        self._shown |= shown.keys()

    def commit(self, seconds: float) -> None:
        self._commits.observe(seconds, {"output": self._output})


def _keys(tags: tuple[str, ...]) -> tuple[str, ...]:
    return ("output", *tags)
