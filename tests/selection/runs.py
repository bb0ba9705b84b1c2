"""Whole runs without Ray: what `caption`, `--extend` and `retry` do, with an engine that counts and may fail."""

import asyncio
import random
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pipeline.engines import EngineResponse
from pipeline.flow import driver
from pipeline.flow.commits import commit_task
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import PreparedJob, prepare_job
from pipeline.flow.run_result import RunResult
from pipeline.flow.shard_task import ShardTask, selection_of_task, taken_over_of_task
from pipeline.ledger.shard_tracker import CompletedShard
from pipeline.readers import list_shards
from pipeline.stages.captioning import Caption
from pipeline.stages.read_batches import read_shard
from schemas.status import Reason
from tests.outputs import committed_rows

Image = tuple[str, int]


class Engine:
    """Answers with shard, row and slot, and remembers the images that were asked; fails those in `bad`."""

    def __init__(self, bad: Collection[Image] = ()) -> None:
        self.asked: list[tuple[str, int, str]] = []
        self.bad = bad

    async def answer(self, question):
        shard, row, slot, _ = question.id.split("#")
        self.asked.append((shard, int(row), slot))
        if (shard, int(row)) in self.bad:
            return EngineResponse(id=question.id, text=None, reason=Reason.ENGINE_ERROR, message="refused")
        return EngineResponse(id=question.id, text=f"answer of {shard} {row} {slot}", finish_reason="stop")


def run_tasks(
    prepared: PreparedJob, bad: Collection[Image] = (), *, seed: int | None = None, stop_after: int | None = None
) -> list[tuple[str, int, str]]:
    """Work on the tasks, in an order of `seed`; return what was asked. With `stop_after` end like a killed run."""
    engine = Engine(bad)
    tasks = list(prepared.tasks)
    if seed is not None:
        random.Random(seed).shuffle(tasks)
    result = RunResult.of(prepared)
    for task in tasks[:stop_after]:
        commit = _caption(prepared, task, engine)
        if not commit.won:
            result.shards_lost.append(task.shard.path)
    if stop_after is None:
        driver.record_applied(prepared, result)
    return engine.asked


def _caption(prepared: PreparedJob, task: ShardTask, engine: Engine):
    read = prepared.read_spec
    spec = replace(
        read,
        selection=selection_of_task(read.selection, task, prepared.store, read.duplicates_by),
        taken_over=taken_over_of_task(task, prepared.store, prepared.earlier, prepared.run_identity),
    )
    stage = Caption(prepared.caption_spec, engine, prepared.store)
    rows = None if task.retry_rows is None else task.retry_rows.rows

    async def all_of_them():
        return [await stage(batch) for batch in read_shard(spec, task.shard, [], rows)]

    receipts = [receipt.to_pylist()[0] for receipt in asyncio.run(all_of_them())]
    fragments = tuple(sorted(receipt["fragment"] for receipt in receipts))
    completed = CompletedShard(task.shard.path, receipts[0]["num_images"], fragments)
    return commit_task(prepared.store, prepared.run_identity, task, completed)


def run_job(job, bad: Collection[Image] = (), *, extend: bool = False, seed: int | None = None):
    """What `caption` does; return the rows of the output by (shard, row, slot), and what was asked."""
    asked = run_tasks(prepare_job(job, Extension() if extend else None), bad, seed=seed)
    return rows_of(job.output), asked


def rows_of(output: str) -> dict[tuple[str, int, str], dict]:
    rows = committed_rows(Path(output))
    by_identity = {(row["shard"], row["row"], row["slot"]): row for row in rows}
    assert len(by_identity) == len(rows)
    return by_identity


def images_with(rows, status: str) -> list[Image]:
    return sorted({(shard, row) for (shard, row, _), values in rows.items() if values["status"] == status})


def committed_bytes(output: str) -> dict[str, bytes]:
    folder = Path(output) / "captions"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def shard_paths(job) -> list[str]:
    return [shard.path for shard in list_shards(job.source)]
