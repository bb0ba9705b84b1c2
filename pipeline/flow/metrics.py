"""Publishes the metrics of a run for Prometheus, through Ray's metrics API, from the driver only.

Reader processes start and stop often, so readers and replicas send their counts to the progress actor and the driver
publishes the sums: some fifty values every five seconds, 7 us each (measured). Ray exports them with the prefix
`ray_`, counters with the suffix `_total`, on the metrics port of the driver's node. docs/watching.md lists them; the
dashboard and the alerts in infra/observability use no other metrics.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.flow.progress import Snapshot
from pipeline.flow.progress_actor import Counts, Replica, ReplicaDetails
from pipeline.flow.run_result import RunResult

PUBLISH_INTERVAL_S = 5.0

COMMIT_BOUNDS_S = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]

Tags = tuple[tuple[str, str], ...]

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "images": (
        "Images that passed a stage: read, asked (sent to a replica), staged; resumed: staged by earlier runs",
        ("stage",),
    ),
    "captions": ("Caption rows staged by this run or resumed from earlier runs", ("status",)),
    "shards": ("Finished shards: committed, lost (committed by another run), quarantined", ("outcome",)),
    "decode_seconds": ("Decoding time of the readers", ()),
    "questions": (
        "Requests that the engines answered: first attempts, and repairs (retries of rejected answers)",
        ("kind", "replica"),
    ),
    "tokens": ("Tokens of answered prompts, image tokens included, and of captions", ("kind", "replica")),
    "prefix_tokens": ("Prompt tokens looked up in vLLM's prefix cache, and found in it", ("kind", "replica")),
    "preemptions": ("Requests that vLLM preempted because the KV cache was full", ("replica",)),
    "engine_restarts": ("Restarts of crashed engines", ("replica",)),
    "replica_seconds": ("Uptime of the replicas", ("replica",)),
    "gpu_seconds": ("Uptime of the replicas times the GPUs of a replica", ("replica",)),
}
"""Name without prefix to description and tags; every metric also has the tag `output`."""

GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "up": ("1 while the driver runs", ()),
    "queue_images": ("Images in a queue: decoded (waiting for a replica), engines (in flight)", ("queue",)),
    "commits_under_way": ("Commits in progress", ()),
    "replicas": ("Replicas that are up, and those of them without an image in flight", ("state",)),
    "requests": ("Requests in an engine, running or waiting", ("state", "replica")),
    "kv_cache_used": ("Share of the KV cache in use, 0 to 1", ("replica",)),
    "source_bytes": ("Bytes of the source, planned and done, earlier runs included", ("state",)),
    "shards_planned": ("Shards in the plan", ()),
    "eta_seconds": ("Estimated time left at the rate of the last minute; absent while the rate is 0", ()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsInput:
    """The state of the run that is published at one time."""

    snapshot: Snapshot
    counts: Counts
    details: ReplicaDetails
    result: RunResult
    commits_under_way: int
    gpus_per_replica: float


Value = tuple[str, Mapping[str, str], float]


def counter_values(state: MetricsInput) -> Iterator[Value]:
    """Yield name, tags and sum of every counter."""
    counts, result = state.counts, state.result
    stages = {
        "read": counts.read,
        "asked": counts.dispatched,
        "staged": counts.staged,
        "resumed": result.images_resumed,
    }
    for stage, images in stages.items():
        yield "images", {"stage": stage}, images
    for status, rows in state.snapshot.statuses.items():
        yield "captions", {"status": status}, rows
    finished = {
        "committed": result.shards_committed,
        "lost": len(result.shards_lost),
        "quarantined": len(result.shards_quarantined),
    }
    for outcome, num_shards in finished.items():
        yield "shards", {"outcome": outcome}, num_shards
    yield "decode_seconds", {}, state.details.decode_s
    for name, replica in state.details.replicas.items():
        for metric, tags, value in _replica_counters(replica, state.gpus_per_replica):
            yield metric, {**tags, "replica": name}, value


def _replica_counters(replica: Replica, gpus: float) -> Iterator[Value]:
    stats, engine = replica.stats, replica.stats.engine
    yield "questions", {"kind": "first"}, stats.questions - stats.repairs
    yield "questions", {"kind": "repair"}, stats.repairs
    yield "tokens", {"kind": "prompt"}, stats.prompt_tokens
    yield "tokens", {"kind": "caption"}, stats.caption_tokens
    yield "prefix_tokens", {"kind": "looked_up"}, engine.prefix_tokens
    yield "prefix_tokens", {"kind": "found"}, engine.prefix_hits
    yield "preemptions", {}, engine.preemptions
    yield "engine_restarts", {}, stats.restarts
    yield "replica_seconds", {}, replica.up_s
    yield "gpu_seconds", {}, replica.up_s * gpus


def gauge_values(state: MetricsInput) -> Iterator[Value]:
    """Yield name, tags and value of every gauge."""
    counts, snapshot, replicas = state.counts, state.snapshot, state.details.replicas
    yield "up", {}, 1
    yield "queue_images", {"queue": "decoded"}, max(0, counts.read - counts.dispatched)
    yield "queue_images", {"queue": "engines"}, counts.in_flight
    yield "commits_under_way", {}, state.commits_under_way
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
    """Turns sums into increments."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, Tags], float] = {}

    def of(self, name: str, tags: Mapping[str, str], total: float) -> float:
        """Return the increment since the last call. A smaller sum is that of a restarted actor, which counts from 0."""
        key = (name, tuple(tags.items()))
        before = self._totals.get(key, 0.0)
        self._totals[key] = total
        return total - before if total >= before else total


class Metrics:
    """Publishes the metrics of one run; needs a connection to Ray."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._counters = {
            name: Counter(f"joyfleet_{name}", text, ("output", *tags)) for name, (text, tags) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"joyfleet_{name}", text, ("output", *tags)) for name, (text, tags) in GAUGES.items()
        }
        text = "Seconds from the last receipt of a shard to its commit"
        self._commits = Histogram("joyfleet_commit_seconds", text, COMMIT_BOUNDS_S, ("output",))
        self._increments = Increments()
        self._published_gauges: set[tuple[str, Tags]] = set()
        self._published_at = -PUBLISH_INTERVAL_S

    @property
    def due(self) -> bool:
        """Whether the publish interval has passed."""
        return time.monotonic() - self._published_at >= PUBLISH_INTERVAL_S

    def publish(self, state: MetricsInput) -> None:
        self._published_at = time.monotonic()
        for name, tags, total in counter_values(state):
            increment = self._increments.of(name, tags, total)
            if increment > 0:  # Ray refuses an increment of 0
                self._counters[name].inc(increment, {"output": self._output, **tags})
        values = {(name, tuple(tags.items())): value for name, tags, value in gauge_values(state)}
        # Ray exports the last value of a gauge for ever: the gauges of a replica that is gone must become 0.
        for (name, tags), value in {**dict.fromkeys(self._published_gauges - values.keys(), 0.0), **values}.items():
            self._gauges[name].set(value, {"output": self._output, **dict(tags)})
        self._published_gauges |= values.keys()

    def commit(self, seconds: float) -> None:
        self._commits.observe(seconds, {"output": self._output})
