"""Brings the blocks of a Ray dataset to the driver, unwraps Ray's errors, and ends the execution before Ray ends.

Ray Data hands out blocks by an iterator that blocks. A driver must meanwhile commit, report and notice a stop
request, so a thread iterates and the driver takes the blocks from a queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.exceptions import RayError

from pipeline.errors import PipelineError
from pipeline.flow.lean_data import on_one_node

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 15.0
"""How long the end of a stream waits for Ray Data's threads. Its scheduler alone is given 2 s by Ray 2.60."""

CLOSE_POLL_S = 0.2


class _Execution(ExecutionCallback):
    """Follows the executions of this process, and drops the statistics that Ray Data keeps of every block.

    Ray 2.60 appends a `BlockStats` for each block that leaves a map operator (`MapOperator._output_blocks_stats`) and
    reads the list only for the summary at the end of an execution, which no part of JoyFleet shows. It also pickles
    both lists into its stats actor every five seconds. A batch is a block here, so they would grow with the images:
    docs/benchmarks.md (`soak`) has what each process grew by with and without them. Ray's metrics for Prometheus come
    from `OpRuntimeMetrics`, which are sums, and stay as they are.
    """

    running: ClassVar[list[StreamingExecutor]] = []

    def before_execution_starts(self, executor: StreamingExecutor) -> None:
        self.running.append(executor)

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        # In the scheduler's thread, the only one that appends.
        for operator in executor._topology or ():  # pyright: ignore[reportPrivateUsage] - no public way
            if isinstance(operator, MapOperator):
                # In place: the statistics of the iterator hold the same list.
                operator._output_blocks_stats.clear()  # pyright: ignore[reportPrivateUsage] - as above


def configure_data_context() -> DataContext:
    """Make each row a block of its own, without progress bars and block statistics; return the context.

    Ray cuts and merges blocks by size. With a target of one byte a repeated task emits the same blocks again.
    """
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if _Execution not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_Execution)
    return context


class Stream:
    """The blocks of one execution, in the order of their arrival."""

    def __init__(self, dataset: Dataset) -> None:
        self.ended = False
        """Whether the dataset has no more blocks."""
        self._queue: queue.SimpleQueue[pa.Table | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._iterate, args=(dataset,), name="stream", daemon=True)
        self._thread.start()

    def blocks(self, timeout_s: float) -> Iterator[pa.Table]:
        """Yield the blocks that have arrived; wait at most `timeout_s` for the first, also when no more will come.

        Raises:
            PipelineError: an error that ended the execution: ours if it is one, else one that quotes Ray's.
        """
        if self.ended:
            time.sleep(timeout_s)
        while not self.ended:
            try:
                item = self._queue.get(timeout=timeout_s)
            except queue.Empty:
                return
            timeout_s = 0.0
            if isinstance(item, BaseException):
                raise unwrap(item) from item
            if item is None:
                self.ended = True
            else:
                yield item

    def close(self) -> None:
        """Stop the execution and wait for its threads.

        A scheduler thread of Ray Data that still runs when Ray is shut down calls into a core worker that is gone: the
        process may end with SIGSEGV in place of its own exit code.
        """
        # In a thread, since Ray's shutdown of an execution may wait for a cluster that no longer answers.
        closing = threading.Thread(target=self._stop_executions, name="stream-close", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)
        if closing.is_alive():
            log.warning("Ray Data's execution did not stop within %g s; the run ends without it", CLOSE_TIMEOUT_S)

    def _stop_executions(self) -> None:
        # The thread may be about to start its execution: what is not started yet cannot be shut down.
        while self._thread.is_alive():
            for executor in _Execution.running:
                executor.shutdown(force=False)
            self._thread.join(CLOSE_POLL_S)
        _Execution.running.clear()

    def _iterate(self, dataset: Dataset) -> None:
        try:
            # Not `iter_batches`, whose threads and statistics cost as much again as the blocks.
            for bundle in dataset.iter_internal_ref_bundles():
                references: Any = list(bundle.block_refs)  # one block each; Ray's types differ by overload
                for block in ray.get(references):
                    self._queue.put(cast("pa.Table", block))
            self._queue.put(None)
        except BaseException as err:  # noqa: BLE001 - handed to the driver's thread, which raises it
            self._queue.put(err)


@contextmanager
def open_stream(dataset: Dataset, *, is_lean: bool = False) -> Iterator[Stream]:
    """Execute a dataset; at the end, whatever ended it, stop the execution. One at a time in a process.

    Args:
        dataset: what to execute.
        is_lean: as `Cluster.is_lean`.
    """
    with on_one_node() if is_lean else nullcontext():
        stream = Stream(dataset)
        try:
            yield stream
        finally:
            stream.close()


def unwrap(err: BaseException) -> BaseException:
    """Return the error of ours inside Ray's wrapping, else a PipelineError that quotes Ray's.

    Ray's own wrapper is an instance of ours as well, and its text is a whole traceback: the innermost one counts.
    """
    ours: PipelineError | None = None
    cause: Any = err
    while cause is not None:
        if isinstance(cause, PipelineError) and not isinstance(cause, RayError):
            ours = cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    if ours is None and isinstance(err, RayError):
        return PipelineError(f"the flow ended with an error of Ray: {err}")
    return ours or err
