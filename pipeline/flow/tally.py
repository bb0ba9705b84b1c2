"""How far each stage is, for eyes and for the watchdog only: no decision about data rests on it."""

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


class _Tally:
    def __init__(self) -> None:
        self._sums = {"read": 0, "asked": 0, "staged": 0}
        self._replicas: set[str] = set()

    def add(self, **amounts: int) -> None:
        for name, amount in amounts.items():
            self._sums[name] += amount

    def replica_up(self, actor_id: str) -> None:
        self._replicas.add(actor_id)

    def counts(self) -> Counts:
        return Counts(**self._sums, replicas=len(self._replicas))


READ_TIMEOUT_S = 10.0


def start_tally() -> Any:  # noqa: ANN401 - Ray's handles have no useful type
    """Start a tally on the driver's node, with which it would be of no use any more."""
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # No CPU of its own: on a cluster of one CPU a reader could otherwise wait for it for ever.
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Tally).remote()


def read_counts(tally: Any) -> Counts | None:  # noqa: ANN401 - see above
    """Return the counts; None when the tally does not answer, which must not end a run."""
    try:
        return ray.get(tally.counts.remote(), timeout=READ_TIMEOUT_S)
    except (GetTimeoutError, RayActorError) as err:
        log.warning("the tally does not answer: %r", err)
        return None
