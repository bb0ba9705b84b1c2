"""How far each stage is, for eyes and for the watchdog only: no decision about data rests on it."""

from __future__ import annotations

from dataclasses import dataclass

import ray


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Images that have passed each stage in this run, and the replicas that are up."""

    read: int = 0
    asked: int = 0
    staged: int = 0
    bytes_read: int = 0
    replicas: int = 0


class _Tally:
    def __init__(self) -> None:
        self._sums = {"read": 0, "asked": 0, "staged": 0, "bytes_read": 0}
        self._replicas: set[str] = set()

    def add(self, **amounts: int) -> None:
        for name, amount in amounts.items():
            self._sums[name] += amount

    def replica_up(self, actor_id: str) -> None:
        self._replicas.add(actor_id)

    def counts(self) -> Counts:
        return Counts(**self._sums, replicas=len(self._replicas))


# No CPU of its own: on a cluster of one CPU a reader could otherwise wait for it for ever.
Tally = ray.remote(num_cpus=0, max_restarts=-1)(_Tally)
