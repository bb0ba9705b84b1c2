"""Calls a function for each item of a list on Ray Data, and brings the results to the driver.

Nothing here makes anything exactly once: an item may be processed twice, after a worker died or by two runs at the
same time. The output of an item must be put if absent and be the same whoever makes it; then it does not matter.
"""

import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from pipeline.errors import Interrupted, PipelineError
from pipeline.flow.cluster import Cluster
from pipeline.flow.stream import configure_data_context, open_stream
from pipeline.flow.watchdog import Watchdog

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.5
IN_FLIGHT = 2
"""Items assigned to an actor: it processes one while the other waits, so that no actor is idle."""


class _Worker(Generic[Item, Result]):
    """One process that handles items. An error of ours is returned as data, since Ray rewrites exceptions."""

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self._work = work

    def __call__(self, batch: pa.Table) -> pa.Table:
        results: list[Result | PipelineError] = []
        for data in batch["item"].to_pylist():
            try:
                results.append(self._work(pickle.loads(data)))
            except PipelineError as err:
                results.append(err)
        return pa.table({"result": [pickle.dumps(result) for result in results]})


def parallel_map(
    work: Callable[[Item], Result], items: Sequence[Item], cluster: Cluster, stop: threading.Event, stall_s: float
) -> Iterator[Result]:
    """Yield the result of each item, in the order of completion.

    Args:
        work: pickles; called in processes of Ray, several times in each, perhaps twice for an item.
        items: pickle.
        cluster: connected.
        stop: set it to end early; items in flight are given up.
        stall_s: seconds without any result after which the run ends.

    Raises:
        Interrupted: `stop` was set.
        Stalled: no result came for `stall_s`.
        PipelineError: what `work` raised.
    """
    if not items:
        return
    watchdog = Watchdog(stall_s)
    num_left = len(items)
    with open_stream(_dataset(work, items, cluster), is_lean=cluster.is_lean) as stream:
        while num_left:
            if stop.is_set():
                num_done = len(items) - num_left
                raise Interrupted(f"stopped with {num_done} of {len(items)} items of this step done; run again")
            for block in stream.blocks(POLL_S):
                if stop.is_set():
                    break
                for result in map(pickle.loads, block["result"].to_pylist()):
                    if isinstance(result, PipelineError):
                        raise result
                    num_left -= 1
                    yield result
            if stream.ended and num_left:
                raise PipelineError(f"the flow ended with {num_left} of {len(items)} items unfinished; run again")
            watchdog.check(num_left, f"{num_left} of {len(items)} items are left")


def _dataset(work: Callable[[Item], Result], items: Sequence[Item], cluster: Cluster) -> Dataset:
    configure_data_context()
    rows = [{"item": pickle.dumps(item)} for item in items]
    compute: dict[str, Any] = {"min_size": 1, "max_size": max(1, cluster.num_cpus - 1)}
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        # By value: an actor that restarts may find no reference again (ray#53727).
        fn_constructor_args=(work,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(**compute, max_tasks_in_flight_per_actor=IN_FLIGHT),
        num_cpus=1,
    )
