"""Any work over a list of items on Ray Data: a callable for each item, what it returns back at the driver.

Nothing here makes anything exact: an item may be worked on twice, after a worker died or by two runs at once. What
an item makes must be put if absent, and be the same whoever makes it; then it does not matter.
"""

from __future__ import annotations

import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from pipeline.errors import Interrupted, PipelineError, Stalled
from pipeline.flow.block_stats import drop_block_stats
from pipeline.flow.cluster import Cluster

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.5
IN_FLIGHT = 2
"""Items with an actor: one is worked on, one waits so that no actor does."""


class _Worker(Generic[Item, Result]):
    """One process that works on items; an error of ours travels as data, since Ray rewrites exceptions."""

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self._work = work

    def __call__(self, batch: pa.Table) -> pa.Table:
        found: list[Result | PipelineError] = []
        for data in batch["item"].to_pylist():
            try:
                found.append(self._work(pickle.loads(data)))
            except PipelineError as err:
                found.append(err)
        return pa.table({"result": [pickle.dumps(result) for result in found]})


def parallel_map(
    work: Callable[[Item], Result], items: Sequence[Item], cluster: Cluster, stop: threading.Event, stall_s: float
) -> Iterator[Result]:
    """Yield the result of each item, as they come.

    Args:
        work: pickles; called in processes of Ray, several times in each, perhaps twice for an item.
        items: pickle.
        cluster: connected.
        stop: set it to end early: what is in flight is given up.
        stall_s: seconds without any result after which the run ends.

    Raises:
        Interrupted: `stop` was set.
        Stalled: no result came for `stall_s`.
        PipelineError: what `work` raised.
    """
    if not items:
        return
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    dataset = _dataset(work, items, cluster)
    threading.Thread(target=_pull, args=(dataset, results), name="results", daemon=True).start()
    moved_at = time.monotonic()
    left = len(items)
    while left:
        if stop.is_set():
            raise Interrupted(f"stopped with {len(items) - left} of {len(items)} items of this step done; run again")
        try:
            found = results.get(timeout=POLL_S)
        except queue.Empty:
            if time.monotonic() - moved_at > stall_s:
                raise Stalled(f"{left} of {len(items)} items are left, and none ended for {stall_s:g} s") from None
            continue
        moved_at = time.monotonic()
        for result in _opened(found):
            left -= 1
            yield result


def _dataset(work: Callable[[Item], Result], items: Sequence[Item], cluster: Cluster) -> Dataset:
    context = DataContext.get_current()
    # An item is a row, and each row a block of its own: a repeated task repeats one item.
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    drop_block_stats(context)
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


def _pull(dataset: Dataset, results: queue.SimpleQueue[Any]) -> None:
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            results.put(cast("pa.Table", block)["result"].to_pylist())
    except BaseException as err:  # noqa: BLE001 - handed to the driver's thread, which raises it
        results.put(err)


def _opened(found: Any) -> Iterator[Any]:  # noqa: ANN401 - results, or what ended the flow
    if isinstance(found, RayError):
        raise PipelineError(f"the flow ended with an error of Ray: {found}") from found
    if isinstance(found, BaseException):
        raise found
    for data in found:
        result = pickle.loads(data)
        if isinstance(result, PipelineError):
            raise result
        yield result
