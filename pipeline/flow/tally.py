"""How far each stage is, and whether the run is stopping: what all processes of a run tell each other.

No decision about data rests on it. A tally that dies forgets; a driver that stops tells it again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Images that have passed each stage in this run, and the replicas that are up."""

    read: int = 0
    asked: int = 0
    staged: int = 0
    replicas: int = 0
    in_flight: int = 0
    """With the engines now: those of a replica that died are gone when it is up again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The answer to a reader that begins a shard."""

    times: int
    """How often the shard was begun in this run, this time included: more than once after a reader died."""
    stopping: bool


class _Tally:
    def __init__(self) -> None:
        self._sums = {"read": 0, "asked": 0, "staged": 0}
        self._in_flight: dict[str, int] = {}
        self._begun: dict[str, int] = {}
        self._stopping = False

    def replica_up(self, replica: str) -> None:
        self._in_flight[replica] = 0

    def begin_shard(self, shard: str) -> Begun:
        self._begun[shard] = self._begun.get(shard, 0) + 1
        return Begun(times=self._begun[shard], stopping=self._stopping)

    def read(self, num_images: int) -> bool:
        self._sums["read"] += num_images
        return self._stopping

    def begin_batch(self, replica: str, num_images: int) -> bool:
        if not self._stopping:
            self._sums["asked"] += num_images
            self._in_flight[replica] = self._in_flight.get(replica, 0) + num_images
        return self._stopping

    def end_batch(self, replica: str, num_images: int) -> None:
        self._sums["staged"] += num_images
        self._in_flight[replica] = max(0, self._in_flight.get(replica, 0) - num_images)

    def stop(self) -> None:
        self._stopping = True

    def counts(self) -> Counts:
        return Counts(**self._sums, replicas=len(self._in_flight), in_flight=sum(self._in_flight.values()))


ANSWER_TIMEOUT_S = 10.0


def start_tally() -> Any:  # noqa: ANN401 - Ray's handles have no useful type
    """Start a tally on the driver's node, with which it would be of no use any more."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # No CPU of its own: on a cluster of one CPU a reader could otherwise wait for it for ever.
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Tally).remote()


def read_counts(tally: Any) -> Counts | None:  # noqa: ANN401 - see above
    """Return the counts; None when the tally does not answer, which must not end a run."""
    return answer_of(tally.counts.remote())


def answer_of(asked: Any) -> Any:  # noqa: ANN401 - see above
    """Wait for what the tally answers; None when it does not."""
    try:
        return ray.get(asked, timeout=ANSWER_TIMEOUT_S)
    except (GetTimeoutError, RayActorError) as err:
        log.warning("the tally does not answer: %r", err)
        return None
