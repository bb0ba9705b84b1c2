"""Runs Ray Data on one node without its three actors, which serve clusters: a process with `ray.data` each.

Ray Data 2.60 has no setting for them, so its functions are replaced while a dataset is executed:

- `_StatsActor` has the statistics for the dashboard and for Ray Data's own metrics, which nobody reads without
  `cluster.metrics_port`;
- `AutoscalingCoordinator` asks for more nodes and divides them among executions. Until it is up, an execution counts no
  resources at all;
- `ActorLocationTracker` knows which replica is on which node. The scheduler waits for its process before it starts the
  first reader, and from then on asks it once a second.

docs/benchmarks.md ("Start") has what they cost.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import ray
from ray.data import ExecutionResources
from ray.data._internal import stats
from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.operators import actor_pool_map_operator

from pipeline.flow.lean_ray import replaced_functions


@contextmanager
def on_one_node() -> Iterator[None]:
    """Replace the functions of Ray Data that start these actors; not for two threads at once."""
    replaced: list[tuple[Any, str, Any]] = [
        (stats, "get_or_create_stats_actor", NoActor),
        (streaming_executor, "create_cluster_autoscaler", _OneNode),
        (actor_pool_map_operator, "get_or_create_actor_location_tracker", NoActor),
        (actor_pool_map_operator, "get_actor_locations", _unknown),
    ]
    with replaced_functions(replaced):
        yield


class NoActor:
    """Takes every call that is sent to an actor, and does nothing; pickles, since replicas get one."""

    def __getattr__(self, name: str) -> Self:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def remote(self, *_: object, **__: object) -> None:
        """See the class."""


class _OneNode(ClusterAutoscaler):
    """The resources of a node that stays alone."""

    def __init__(self, *_: object, **__: object) -> None:
        self._total = ExecutionResources.from_resource_dict(dict(ray.cluster_resources()))

    def try_trigger_scaling(self) -> None:
        pass

    def on_executor_shutdown(self) -> None:
        pass

    def get_total_resources(self) -> ExecutionResources:
        return self._total


def _unknown(logical_actor_ids: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001 - as Ray's own
    """Ray Data then takes the node that a replica itself has named when it was up."""
    return {}
