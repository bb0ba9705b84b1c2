"""The Ray Data pipeline: one read task per shard, a pool of engine actors, receipts at the end.

Every batch is one row of one block. Ray cuts and merges blocks by size; a target of one byte makes
each row a block of its own, so a batch reaches an actor as the reader made it, and a retried
reader re-emits the same blocks.
"""

from __future__ import annotations

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
from pipeline.engines import EngineSpec, start_engine
from pipeline.engines.sizing import planned_num_seqs, readers_per_replica
from pipeline.errors import PipelineError
from pipeline.flow.cluster import Cluster, accelerator_here, check_accelerators, check_gpus
from pipeline.flow.progress_actor import ANSWER_TIMEOUT_S, ShardStart, result_or_none
from pipeline.flow.shard_task import ShardTask
from pipeline.flow.stream import configure_data_context
from pipeline.ledger.commit import num_images_committed
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info
from pipeline.models import FAMILIES, ModelDims
from pipeline.stages.captioning import Caption, CaptionSpec, fatal_receipt, skipped_receipt
from pipeline.stages.read_batches import ReadSpec, ReadTimings, committed_batch, fatal_batch, read_shard, skipped_batch
from pipeline.storage import Store

log = logging.getLogger(__name__)

BEAT_S = 5.0
"""Between two words of a replica on how it does: also when nothing is asked of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """All that the workers need; pickles."""

    read: ReadSpec
    caption: CaptionSpec
    engine: EngineSpec
    store: Store
    tally: Any
    """Handle of a `pipeline.flow.progress_actor.Tally` actor."""


class ShardSource(Datasource):
    """One read task per shard."""

    def __init__(self, spec: FlowSpec, works: Sequence[ShardTask]) -> None:
        super().__init__()
        # Once in the object store, not once in each of 30,000 tasks.
        self._spec: Any = ray.put(spec)
        self._works = works

    def get_name(self) -> str:
        return "Shards"

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        del parallelism, data_context  # one task per shard, whatever Ray would like
        return [_read_task(self._spec, work, per_task_row_limit) for work in self._works]


def _read_task(spec: Any, work: ShardTask, row_limit: int | None) -> ReadTask:  # noqa: ANN401 - reference of a FlowSpec
    metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=(work.shard.path,), exec_stats=None)
    return ReadTask(_reader(spec, work), metadata, per_task_row_limit=row_limit)


def _reader(reference: Any, work: ShardTask) -> Callable[[], Iterable[pa.Table]]:  # noqa: ANN401 - as above
    def read() -> Iterable[pa.Table]:
        spec: FlowSpec = ray.get(reference)
        begun: ShardStart | None = result_or_none(spec.tally.begin_shard.remote(work.shard.path))
        if begun is not None and begun.stopping:
            yield skipped_batch(work.shard)
            return
        try:
            # Only at the first beginning: a reader that Ray repeats must emit what it emitted before.
            if work.retry_rows is None and begun is not None and begun.times == 1:
                num_images = num_images_committed(spec.store, spec.caption.run, work.shard)
                if num_images is not None:
                    yield committed_batch(work.shard, num_images)
                    return
            # What killed the reader before may have been one of its images.
            spent = ReadTimings(on_timeout=lambda: spec.tally.decode_timeout.remote())
            batches = _read(spec, work, spent, apart=begun is not None and begun.times > 1)
            yield from _until_stopped(spec, work.shard.path, batches, spent)
        except Exception as err:
            # Of a reader that it repeats, Ray drops as many results as it has of the first one, an error among them.
            spec.tally.reader_failed.remote(work.shard.path, f"{type(err).__name__}: {err}")
            if not isinstance(err, PipelineError):
                raise
            yield fatal_batch(work.shard, err)

    return read


def _until_stopped(spec: FlowSpec, shard: str, batches: Iterable[pa.Table], spent: ReadTimings) -> Iterator[pa.Table]:
    """Yield the batches, and end early when the run stops: what is cut off then, no receipt will miss."""
    stop_reply: Any = None
    decode_s = 0.0
    for batch in batches:
        # Not waited for: a reader that waits gives its CPU away, and one batch more does no harm.
        if stop_reply is not None and ray.wait([stop_reply], timeout=0)[0] and result_or_none(stop_reply):
            return
        if stop_reply is None and spent.left_out:
            spec.tally.leave_out.remote(shard, spent.left_out)
        stop_reply = spec.tally.read.remote(len(batch["images"][0]), spent.decode_s - decode_s)
        decode_s = spent.decode_s
        yield batch


def _read(spec: FlowSpec, work: ShardTask, spent: ReadTimings, *, apart: bool) -> Iterator[pa.Table]:
    facts = [read_fragment_info(spec.store, path, spec.caption.run, work.shard) for path in work.fragments]
    staged = [fragment for fragment in facts if isinstance(fragment, FragmentInfo)]
    yield from read_shard(
        spec.read, work.shard, staged, work.retry_rows and work.retry_rows.rows, apart=apart, spent=spent
    )


class CaptionActor:
    """One replica: an engine and the captioning around it, inside a Ray actor."""

    def __init__(self, spec: FlowSpec) -> None:
        self._spec = spec
        self._caption: Caption | PipelineError
        accelerator = accelerator_here()
        engine = replace(spec.engine, config=spec.engine.config.on(accelerator))
        if engine != spec.engine:
            # A warning, since Ray's workers keep nothing below it.
            log.warning("this replica is for accelerator=%s: %r", accelerator, engine.config)
        try:
            self._caption = Caption(spec.caption, start_engine(engine), spec.store)
        except PipelineError as err:
            # Out of a constructor it would reach the driver as a traceback in a text.
            self._caption = err
            return
        self._replica = ray.get_runtime_context().get_actor_id()
        spec.tally.replica_up.remote(self._replica)
        threading.Thread(target=self._beat, args=(self._caption,), name="beat", daemon=True).start()

    def _beat(self, caption: Caption) -> None:
        while True:
            self._spec.tally.beat.remote(self._replica, caption.stats())
            time.sleep(BEAT_S)

    async def __call__(self, batch: pa.Table) -> pa.Table:
        if isinstance(self._caption, PipelineError):
            return fatal_receipt(batch, self._caption)
        num_images = len(batch["images"][0])
        if num_images and await self._is_stopping(num_images):
            return skipped_receipt(batch)
        try:
            return await self._caption(batch)
        except PipelineError as err:
            return fatal_receipt(batch, err)
        finally:
            if num_images:
                self._spec.tally.end_batch.remote(self._replica, num_images)

    async def _is_stopping(self, num_images: int) -> bool:
        """Ask before each batch, so that after the signal nothing new is asked of the engines."""
        begun = self._spec.tally.begin_batch.remote(self._replica, num_images)
        try:
            return bool(await asyncio.wait_for(begun, ANSWER_TIMEOUT_S))
        except (TimeoutError, RayActorError):
            return False


def build_dataset(spec: FlowSpec, works: Sequence[ShardTask], cluster: Cluster) -> Dataset:
    """Return the lazy dataset of receipts (`schemas.batch.RECEIPT`), one row each."""
    _configure_context()
    job = spec.caption.job
    check_accelerators(job.engine)
    check_gpus(job.engine, cluster)
    dims = FAMILIES[spec.engine.family].dims
    readers = job.cluster.max_concurrent_reads or readers_wanted(job.engine, dims, cluster)
    in_flight = batches_in_flight(job.engine, dims, len(spec.caption.run.slots), cluster)
    compute: dict[str, Any] = {
        "min_size": job.engine.replicas.min,
        "max_size": job.engine.replicas.max,
        "max_tasks_in_flight_per_actor": in_flight + 1,
        "max_concurrent_calls_per_actor": in_flight,
    }
    shards = ray.data.read_datasource(
        ShardSource(spec, works), override_num_blocks=len(works), concurrency=min(readers, len(works))
    )
    return shards.map_batches(
        CaptionActor,
        fn_constructor_kwargs={"spec": spec},
        # A row is a batch of ours. Not None, which would mean the same and is refused together with GPUs.
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(**compute),
        # An actor with a share of a CPU and a reader with the rest of it starve each other on small clusters.
        num_cpus=0,
        num_gpus=cluster.gpus_per_replica(job.engine),
        accelerator_type=job.engine.accelerator_type,
    )


def batches_in_flight(engine: EngineConfig, dims: ModelDims, num_slots: int, cluster: Cluster) -> int:
    """Batches that a replica works on at once: at least twice the requests that the engine decodes together.

    Measured with 64 engine slots: 1 batch of 32 in flight keeps them 57 % busy, 4 batches 97 %.
    """
    if engine.batches_in_flight is not None:
        return engine.batches_in_flight
    gpu = cluster.gpus_per_replica(engine) > 0
    # The pool has one number for all cards: the one that keeps the largest busy.
    cards = (None, *engine.per_accelerator)
    decoded_together = max(planned_num_seqs(engine.on(card), dims, gpu=gpu) for card in cards)
    if engine.kind is EngineKind.ECHO:
        decoded_together = engine.batch_images
    return max(2, math.ceil(2 * decoded_together / (engine.batch_images * num_slots)))


def readers_wanted(engine: EngineConfig, dims: ModelDims, cluster: Cluster) -> int:
    """Shards read at once: a CPU each, but no more than replicas on GPUs can take, lest all wait with full hands."""
    if not cluster.gpus_per_replica(engine):
        return cluster.num_cpus
    return min(cluster.num_cpus, engine.replicas.max * readers_per_replica(engine.preset, dims))


def _configure_context() -> None:
    context = configure_data_context()
    # Reservation left one of two CPUs unused: 231 images/s with it, 413 to 422 without (measured, 2 cores).
    context.op_resource_reservation_enabled = False
    # Ray's 1.75 tasks for each that an actor works on is more than we hand it (one in reserve): no pool would grow.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
