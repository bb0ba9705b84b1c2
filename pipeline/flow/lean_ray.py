"""Starts a local Ray without the processes that a run on one machine has no use for.

`ray.init` of Ray 2.60 has no setting for them, so while it starts, its own functions are replaced:

- an API server, also with `include_dashboard=False`: `ray.init` waits until it has imported its modules, and then it
  only collects statistics about the use of Ray;
- the monitor of the autoscaler, for clusters that grow;
- a log monitor, also with `log_to_driver=False`: it sends the workers' lines to drivers that ask for them;
- the part of the node's agent that exports metrics and answers the dashboard. Without `cluster.metrics_port` nobody
  knows the port. The agent then runs as it does where Ray is installed without `ray[default]`.

docs/benchmarks.md ("Start") has what each of them costs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray._private import services, utils
from ray._private.node import Node


@contextmanager
def lean_start(*, metrics: bool) -> Iterator[None]:
    """Replace the functions of Ray that start these processes; not for two threads at once.

    Args:
        metrics: whether the node's agent exports metrics.
    """
    replaced: list[tuple[Any, str, Any]] = [
        (services, "start_api_server", _no_server),
        (Node, "start_monitor", _nothing),
        (Node, "start_log_monitor", _nothing),
    ]
    if not metrics:
        replaced.append((utils, "get_dashboard_dependency_error", _not_wanted))
    with replaced_functions(replaced):
        yield


@contextmanager
def replaced_functions(replaced: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Replace attributes of modules or classes, given as (owner, name, new value); restore them at exit."""
    originals = [getattr(owner, name) for owner, name, _ in replaced]
    for owner, name, function in replaced:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for (owner, name, _), original in zip(replaced, originals, strict=True):
            setattr(owner, name, original)


def _no_server(*_: object, **__: object) -> tuple[str, None]:
    """As Ray's own: (URL, process)."""
    return "", None


def _nothing(*_: object, **__: object) -> None:
    pass


def _not_wanted() -> ImportError:
    """As Ray's own, which returns the error of a missing library."""
    return ImportError("cluster.metrics_port is not set")
