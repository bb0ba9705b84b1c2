"""Ray Data without its actors: their stand-ins take the calls of Ray, and leave Ray as it was."""

import pickle

import pytest
from ray.data import ExecutionResources
from ray.data._internal import stats
from ray.data._internal.execution import streaming_executor
from ray.data._internal.execution.operators import actor_pool_map_operator

from pipeline.flow import lean_data
from pipeline.flow.lean_data import NoActor, on_one_node

REPLACED = (
    (stats, "get_or_create_stats_actor"),
    (streaming_executor, "create_cluster_autoscaler"),
    (actor_pool_map_operator, "get_or_create_actor_location_tracker"),
    (actor_pool_map_operator, "get_actor_locations"),
)


def functions():
    return [getattr(module, name) for module, name in REPLACED]


def test_ray_data_is_as_it_was_after_an_execution_that_failed():
    before = functions()

    def execution():
        with on_one_node():
            assert not set(functions()) & set(before)
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        execution()
    assert functions() == before


def test_a_call_to_no_actor_does_nothing_also_in_a_replica():
    with on_one_node():
        actor = pickle.loads(pickle.dumps(actor_pool_map_operator.get_or_create_actor_location_tracker()))
        assert isinstance(actor, NoActor)
        assert actor.update_actor_location.remote("1", "node") is None
        assert actor_pool_map_operator.get_actor_locations(("1",)) == {}


def test_a_lone_node_has_the_resources_of_ray(monkeypatch):
    resources = {"CPU": 2.0, "memory": 8e9, "object_store_memory": 2e9, "node:10.0.0.1": 1.0}
    monkeypatch.setattr(lean_data.ray, "cluster_resources", lambda: resources)
    with on_one_node():
        total = streaming_executor.create_cluster_autoscaler("topology", execution_id="1").get_total_resources()
    assert total == ExecutionResources(cpu=2, memory=8e9, object_store_memory=2e9)
