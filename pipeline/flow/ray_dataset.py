"""The Ray Data pipeline: one read task per shard, a pool of engine actors, receipts at the end.

Every batch is one row of one block. Ray cuts and merges blocks by size; a target of one byte makes
each row a block of its own, so a batch reaches an actor as the reader made it, and a retried
reader re-emits the same blocks.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask
from ray.exceptions import RayActorError

from pipeline.config import EngineConfig, EngineKind
from pipeline.engines import Engine, EngineSpec, start_engine
from pipeline.engines.orphan_reaper import exit_with_children
from pipeline.engines.sizing import planned_num_seqs, readers_per_replica
from pipeline.errors import EngineDead, PipelineError
from pipeline.flow.cluster import Cluster, accelerator_here, check_accelerators, check_gpus
from pipeline.flow.progress_actor import ANSWER_TIMEOUT_S, ShardStart, result_or_none
from pipeline.flow.replica_starts import current_device
from pipeline.flow.shard_task import ShardTask, selection_of_task, taken_over_of_task
from pipeline.flow.stream import configure_data_context
from pipeline.ledger.commit import num_images_committed
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info
from pipeline.models import ModelDims, planned_dims
from pipeline.stages.captioning import Caption, CaptionSpec, drained_receipt, fatal_receipt
from pipeline.stages.read_batches import ReadSpec, ReadTimings, committed_batch, drained_batch, fatal_batch, read_shard
from pipeline.storage import Store

log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
"""Heartbeat interval of a replica, also while idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """Everything that the workers need; pickles."""

    read: ReadSpec
    caption: CaptionSpec
    engine: EngineSpec
    store: Store
    earlier: tuple[Store, ...] = ()
    """The outputs of `reuse`."""
    progress_actor: Any
    """Handle of the actor of `pipeline.flow.progress_actor`."""


class ShardSource(Datasource):
    """One read task per shard."""

    def __init__(self, spec: FlowSpec, tasks: Sequence[ShardTask]) -> None:
        super().__init__()
        # Once in the object store, not once in each of 30,000 tasks.
        self._spec: Any = ray.put(spec)
        self._tasks = tasks

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        del parallelism, data_context  # always one task per shard
        return [_read_task(self._spec, task, per_task_row_limit) for task in self._tasks]


def _read_task(spec: Any, task: ShardTask, row_limit: int | None) -> ReadTask:  # noqa: ANN401 - reference of a FlowSpec
    metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=(task.shard.path,), exec_stats=None)
    return ReadTask(_reader(spec, task), metadata, per_task_row_limit=row_limit)


def _reader(reference: Any, task: ShardTask) -> Callable[[], Iterable[pa.Table]]:  # noqa: ANN401 - as above
    def read() -> Iterable[pa.Table]:
        spec: FlowSpec = ray.get(reference)
        start: ShardStart | None = result_or_none(spec.progress_actor.begin_shard.remote(task.shard.path))
        if start is not None and start.stopping:
            yield drained_batch(task.shard)
            return
        try:
            # Only in the first attempt: a repeated reader must emit the same blocks as before.
            if task.retry_rows is None and start is not None and start.times == 1:
                num_images = num_images_committed(spec.store, spec.caption.run, task.shard)
                if num_images is not None:
                    yield committed_batch(task.shard, num_images)
                    return
            # A repeated reader decodes in another process: one of its images may have crashed the first attempt.
            timings = ReadTimings(on_timeout=lambda: spec.progress_actor.decode_timeout.remote())
            batches = _read(spec, task, timings, isolated=start is not None and start.times > 1)
            yield from _until_stopped(spec, task.shard.path, batches, timings)
        except Exception as err:
            # Ray drops as many results of a repeated reader as the first attempt returned, even if one is an error.
            spec.progress_actor.reader_failed.remote(task.shard.path, f"{type(err).__name__}: {err}")
            if not isinstance(err, PipelineError):
                raise
            yield fatal_batch(task.shard, err)

    return read


def _until_stopped(spec: FlowSpec, shard: str, batches: Iterable[pa.Table], timings: ReadTimings) -> Iterator[pa.Table]:
    """Yield the batches; end early when the run drains, since the driver then waits for no further receipts."""
    stop_reply: Any = None
    decode_s = 0.0
    for batch in batches:
        # The reply is not waited for: Ray gives the CPU of a waiting reader to others, and one more batch does no harm.
        if stop_reply is not None and ray.wait([stop_reply], timeout=0)[0] and result_or_none(stop_reply):
            return
        if stop_reply is None and timings.left_out:
            spec.progress_actor.leave_out.remote(shard, timings.left_out)
        stop_reply = spec.progress_actor.read.remote(len(batch["images"][0]), timings.decode_s - decode_s)
        decode_s = timings.decode_s
        yield batch


def _read(spec: FlowSpec, task: ShardTask, timings: ReadTimings, *, isolated: bool) -> Iterator[pa.Table]:
    infos = [read_fragment_info(spec.store, path, spec.caption.run, task.shard) for path in task.fragments]
    staged = [fragment for fragment in infos if isinstance(fragment, FragmentInfo)]
    read = replace(
        spec.read,
        selection=selection_of_task(spec.read.selection, task, spec.store, spec.read.duplicates_by),
        taken_over=taken_over_of_task(task, spec.store, spec.earlier, spec.caption.run),
    )
    yield from read_shard(
        read, task.shard, staged, task.retry_rows and task.retry_rows.rows, isolated=isolated, timings=timings
    )


class CaptionActor:
    """One replica: an engine and the captioning around it, inside a Ray actor."""

    def __init__(self, spec: FlowSpec) -> None:
        self._spec = spec
        self._replica = ray.get_runtime_context().get_actor_id()
        accelerator = accelerator_here()
        engine = replace(spec.engine, config=spec.engine.config.on(accelerator))
        if engine != spec.engine:
            # A warning, since Ray's workers keep nothing below it.
            log.warning("this replica is for accelerator=%s: %r", accelerator, engine.config)
        try:
            self._caption: Caption | PipelineError = Caption(spec.caption, self._start(engine), spec.store)
        except PipelineError as err:
            # Out of a constructor it would reach the driver as a traceback in a text.
            self._caption = err
            return
        spec.progress_actor.replica_up.remote(self._replica)
        threading.Thread(target=self._send_heartbeats, args=(self._caption,), name="heartbeat", daemon=True).start()

    def _start(self, engine: EngineSpec) -> Engine:
        """Start the engine; if it does not start here, end this process, and Ray starts the actor again.

        Raises:
            PipelineError: the config is wrong, or no server of an endpoint answers: no device would help.
        """
        device = current_device()
        may_start = result_or_none(self._spec.progress_actor.replica_starting.remote(self._replica, device))
        while may_start is False:
            # Without a result of its constructor the actor gets no batch, and Ray places no other replica here.
            time.sleep(HEARTBEAT_S)
        try:
            return start_engine(engine)
        except EngineDead as err:
            if engine.config.kind is EngineKind.ENDPOINT:
                raise
            log.error("%s: %s", device, err)
            result_or_none(self._spec.progress_actor.replica_failed.remote(self._replica, device, str(err)))
            # Ray restarts an actor whose process ended (max_restarts is -1 in Ray Data's pools), and repeats the
            # batches that its former process had. It would not restart one whose constructor raised.
            logging.shutdown()
            exit_with_children(1)

    def _send_heartbeats(self, caption: Caption) -> None:
        while True:
            self._spec.progress_actor.heartbeat.remote(self._replica, caption.stats())
            time.sleep(HEARTBEAT_S)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        if isinstance(self._caption, PipelineError):
            return fatal_receipt(batch, self._caption)
        num_images = len(batch["images"][0])
        if num_images and await self._is_stopping(num_images):
            return drained_receipt(batch)
        try:
            return await self._caption(batch)
        except PipelineError as err:
            return fatal_receipt(batch, err)
        finally:
            if num_images:
                self._spec.progress_actor.end_batch.remote(self._replica, num_images)

    async def _is_stopping(self, num_images: int) -> bool:
        """Report a batch before it is dispatched; return whether the run drains, in which case it must not be."""
        reply = self._spec.progress_actor.begin_batch.remote(self._replica, num_images)
        try:
            return bool(await asyncio.wait_for(reply, ANSWER_TIMEOUT_S))
        except (TimeoutError, RayActorError):
            return False


def build_dataset(spec: FlowSpec, tasks: Sequence[ShardTask], cluster: Cluster) -> Dataset:
    """Return the lazy dataset of receipts (`schemas.batch.RECEIPT`), one row each."""
    _configure_context()
    job = spec.caption.job
    check_accelerators(job.engine)
    check_gpus(job.engine, cluster)
    dims = planned_dims(job.model)
    readers = job.cluster.max_concurrent_reads or readers_wanted(job.engine, dims, cluster)
    in_flight = batches_in_flight(job.engine, dims, len(spec.caption.run.slots), cluster)
    compute: dict[str, Any] = {
        "min_size": job.engine.replicas.min,
        "max_size": job.engine.replicas.max,
        "max_tasks_in_flight_per_actor": in_flight + 1,
        "max_concurrent_calls_per_actor": in_flight,
    }
    shards = ray.data.read_datasource(
        ShardSource(spec, tasks), override_num_blocks=len(tasks), concurrency=min(readers, len(tasks))
    )
    return shards.map_batches(
        CaptionActor,
        fn_constructor_kwargs={"spec": spec},
        # A row holds a batch of images. None would mean the same, but Ray refuses it together with GPUs.
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(**compute),
        # With a share of a CPU each, an actor and a reader block each other on small clusters.
        num_cpus=0,
        num_gpus=cluster.gpus_per_replica(job.engine),
        accelerator_type=job.engine.accelerator_type,
    )


def batches_in_flight(engine: EngineConfig, dims: ModelDims | None, num_slots: int, cluster: Cluster) -> int:
    """Return the batches that a replica has in flight: at least twice the requests that the engine decodes together.

    Measured with 64 engine slots: 1 batch of 32 in flight keeps them 57 % busy, 4 batches 97 %.
    """
    if engine.batches_in_flight is not None:
        return engine.batches_in_flight
    gpu = cluster.gpus_per_replica(engine) > 0
    # The pool has one number for all cards: the number that keeps the largest card busy.
    cards = (None, *engine.per_accelerator)
    decoded_together = max(planned_num_seqs(engine.on(card), dims, gpu=gpu) for card in cards)
    if engine.kind is EngineKind.ECHO:
        decoded_together = engine.batch_images
    return max(2, math.ceil(2 * decoded_together / (engine.batch_images * num_slots)))


def readers_wanted(engine: EngineConfig, dims: ModelDims | None, cluster: Cluster) -> int:
    """Return the shards read at the same time: one per CPU, capped at what the GPU replicas consume.

    More readers would only block in back-pressure.
    """
    if not cluster.gpus_per_replica(engine):
        return cluster.num_cpus
    return min(cluster.num_cpus, engine.replicas.max * readers_per_replica(engine.preset, dims))


def _configure_context() -> None:
    context = configure_data_context()
    # Reservation left one of two CPUs unused: 231 images/s with it, 413 to 422 without (measured, 2 cores).
    context.op_resource_reservation_enabled = False
    # Ray scales a pool up at 1.75 assigned tasks per running task. Here one task waits per actor: no pool would grow.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
