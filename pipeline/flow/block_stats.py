"""Drops the statistics that Ray Data keeps of every block: a batch is a block here, so they would grow with the images.

Ray 2.60 appends a `BlockStats` for each block that leaves a map operator (`MapOperator._output_blocks_stats`) and
reads the list only for the summary at the end of an execution, which no part of JoyFleet shows. It also pickles
both lists into its stats actor every five seconds, with the timers of the iterator. docs/benchmarks.md
(`soak`) has what each process grew by with and without them. Ray's metrics for Prometheus come from
`OpRuntimeMetrics`, which are sums, and stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor


class _DropBlockStats(ExecutionCallback):
    """Empties the lists after each step of the scheduler, in its thread: the only one that appends to them."""

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        for operator in executor._topology or ():  # pyright: ignore[reportPrivateUsage] - no public way
            if isinstance(operator, MapOperator):
                # In place: the statistics of the iterator hold the same list.
                operator._output_blocks_stats.clear()  # pyright: ignore[reportPrivateUsage] - as above


def drop_block_stats(context: DataContext) -> None:
    """Have executions that start with this context keep no statistics of single blocks."""
    if _DropBlockStats not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(_DropBlockStats)
