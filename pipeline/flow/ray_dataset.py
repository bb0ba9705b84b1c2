"""The Ray Data pipeline: one read task per shard, a pool of engine actors, receipts at the end.

Every batch is one row of one block. Ray cuts and merges blocks by size; a target of one byte makes
each row a block of its own, so a batch reaches an actor as the reader made it, and a retried
reader re-emits the same blocks.
"""

import asyncio
import logging
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

from pipeline.config import EngineConfig, EngineKind, JobConfig
from pipeline.engines import Engine, EngineSpec, start_engine
from pipeline.engines.batch_plan import SMALL_BATCHES, plan_batches, seqs_to_feed
from pipeline.engines.core_server import worker_command
from pipeline.engines.orphan_reaper import exit_with_children
from pipeline.engines.sizing import readers_per_replica
from pipeline.errors import EngineDead, PipelineError
from pipeline.flow.cluster import Cluster, accelerator_here, check_accelerators, check_gpus
from pipeline.flow.progress_actor import SILENT_S, ReplicaReport, ShardStart, result_or_none
from pipeline.flow.ray_env import address_of
from pipeline.flow.replica_starts import current_device
from pipeline.flow.shard_task import ShardTask, may_take_over, selection_of_task, taken_over_of_task
from pipeline.flow.stream import configure_data_context
from pipeline.ledger.commit import num_images_committed
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info
from pipeline.models import ModelDims, planned_dims
from pipeline.stages.captioning import Caption, CaptionSpec, drained_receipt, fatal_receipt, pack_receipts
from pipeline.stages.read_batches import ReadSpec, ReadTimings, committed_batch, drained_batch, fatal_batch, read_shard
from pipeline.storage import Store

log = logging.getLogger(__name__)

READ_AHEAD = 3
"""Batches of a replica that are read before it can work on them, if it has that many in flight or fewer."""

HEARTBEAT_S = 1.0
"""Shortest heartbeat interval of a replica, also while idle."""

HEARTBEATS_PER_S = 250
"""Limit for all replicas together. A heartbeat costs the progress actor 0.8 ms (docs/benchmarks.md)."""


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
    takes_over: bool = False
    """As `may_take_over`."""


class ShardSource(Datasource):
    """One read task per shard."""

    def __init__(self, spec: FlowSpec, tasks: Sequence[ShardTask], num_first: int) -> None:
        """Read `tasks` in this order, the first `num_first` of them at once."""
        super().__init__()
        # Once in the object store, not once in each of 30,000 tasks.
        self._spec: Any = ray.put(spec)
        self._tasks = tasks
        self._num_first = num_first

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        del parallelism, data_context  # always one task per shard
        return [self._read_task(number, per_task_row_limit) for number in range(len(self._tasks))]

    def _read_task(self, number: int, row_limit: int | None) -> ReadTask:
        task, num_small = self._tasks[number], SMALL_BATCHES if number < self._num_first else 0
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=(task.shard.path,), exec_stats=None)
        return ReadTask(_reader(self._spec, task, num_small), metadata, per_task_row_limit=row_limit)


def _reader(
    reference: Any,  # noqa: ANN401 - of a FlowSpec
    task: ShardTask,
    num_small: int,
) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        spec: FlowSpec = ray.get(reference)
        spec = replace(spec, read=replace(spec.read, num_small=num_small))
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._stopped = False
        try:
            started = self._start(engine)
            self._caption: Caption | PipelineError = Caption(
                spec.caption,
                started,
                spec.store,
                started.stats().max_num_seqs,
                takes_over=spec.takes_over and bool(ray.get_runtime_context().was_current_actor_reconstructed),
            )
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
            # A progress actor that does not answer must not keep a replica from working.
            if result_or_none(self._send_report(caption)):
                self._stop(caption)
            time.sleep(heartbeat_interval(self._spec.caption.job.engine.replicas.max))

    def _send_report(self, caption: Caption) -> Any:  # noqa: ANN401 - Ray's references have no useful type
        stopped = self._stopped  # before the counts: once it is set, they do not grow
        report = ReplicaReport(
            num_asked=caption.num_asked, num_staged=caption.num_staged, stopped=stopped, stats=caption.stats()
        )
        return self._spec.progress_actor.heartbeat.remote(self._replica, report)

    def _stop(self, caption: Caption) -> None:
        """Take no more batches, and ask no more images of those that are open."""
        self._stopping = True
        if self._loop is None:
            self._stopped = True  # no batch has come
        else:
            self._loop.call_soon_threadsafe(self._close, caption)

    def _close(self, caption: Caption) -> None:
        caption.close()
        self._stopped = True

    async def __call__(self, batch: pa.Table) -> pa.Table:
        return pack_receipts(await self._receipts(batch))

    async def _receipts(self, batch: pa.Table) -> pa.Table:
        if isinstance(self._caption, PipelineError):
            return fatal_receipt(batch, self._caption)
        self._loop = asyncio.get_running_loop()
        if self._stopping and len(batch["images"][0]):
            return drained_receipt(batch)
        try:
            return await self._caption(batch)
        except PipelineError as err:
            return fatal_receipt(batch, err)
        finally:
            if self._caption.num_asked == self._caption.num_staged:
                self._send_report(self._caption)  # at once, since the next batch may never come


def heartbeat_interval(replicas: int) -> float:
    """Return the seconds between two heartbeats of a replica, for a run with at most so many replicas."""
    return min(SILENT_S / 4, max(HEARTBEAT_S, replicas / HEARTBEATS_PER_S))


def build_dataset(spec: FlowSpec, tasks: Sequence[ShardTask], cluster: Cluster) -> Dataset:
    """Return the lazy dataset of receipts: a row has those of one batch (`schemas.batch.RECEIPTS`)."""
    job = spec.caption.job
    check_accelerators(job.engine)
    check_gpus(job.engine, cluster)
    dims = planned_dims(job.model)
    readers = min(job.cluster.max_concurrent_reads or readers_wanted(job.engine, dims, cluster), len(tasks))
    num_seqs = seqs_to_feed(job.engine, dims, gpu=cluster.gpus_per_replica(job.engine) > 0)
    plan = plan_batches(job.engine, num_seqs, spec.read.geometry.max_pixels, len(spec.caption.run.slots))
    read = replace(spec.read, batch_images=plan.images, grown_batch_images=plan.grown_images)
    spec = replace(spec, read=read, takes_over=may_take_over(tasks))
    _configure_context(plan.in_flight)
    compute: dict[str, Any] = {
        "min_size": job.engine.replicas.min,
        "max_size": job.engine.replicas.max,
        "max_tasks_in_flight_per_actor": plan.in_flight + 1,
        "max_concurrent_calls_per_actor": plan.in_flight,
    }
    shards = ray.data.read_datasource(
        ShardSource(spec, tasks, readers), override_num_blocks=len(tasks), concurrency=readers
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
        **_worker_options(job),
    )


def _worker_options(job: JobConfig) -> dict[str, Any]:
    """Return Ray's options for the processes of replicas."""
    command = worker_command(job.engine) if address_of(job.cluster) is None else None
    return {"runtime_env": {"py_executable": command}} if command else {}


def readers_wanted(engine: EngineConfig, dims: ModelDims | None, cluster: Cluster) -> int:
    """Return the shards read at the same time: one per CPU, capped at what the GPU replicas consume.

    More readers would only block in back-pressure.
    """
    if not cluster.gpus_per_replica(engine):
        return cluster.num_cpus
    return min(cluster.num_cpus, engine.replicas.max * readers_per_replica(engine.preset, dims))


def _configure_context(in_flight: int) -> None:
    context = configure_data_context()
    # Reservation left one of two CPUs unused: 231 images/s with it, 413 to 422 without (measured, 2 cores).
    context.op_resource_reservation_enabled = False
    # Ray scales a pool up at 1.75 assigned tasks per running task. Here one task waits per actor: no pool would grow.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # What is read and waits in the object store, as a share of what the replicas have in flight. Ray's own 2 is meant
    # for two or three batches; with two dozen it would fill the store of a node.
    context.downstream_capacity_backpressure_ratio = min(2.0, max(0.5, READ_AHEAD / in_flight))
    # A thread for every batch that reads the memory of its process once a second, for a summary that nobody sees.
    context.memory_usage_poll_interval_s = None
