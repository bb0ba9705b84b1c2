"""Run a whole job in this process, without Ray: read, caption, stage, commit."""

import asyncio
from pathlib import Path

from PIL import Image

from pipeline.config import JobConfig
from pipeline.engines import Engine, start_engine
from pipeline.flow.prepared_job import prepare_job
from pipeline.ledger.commit import commit_shard
from pipeline.stages.captioning import Caption
from pipeline.stages.read_batches import read_shard
from tests.outputs import committed_rows


def draw_images(folder: Path, *sizes: tuple[int, int]) -> None:
    """Write one red PNG of each size."""
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (200, 0, 0)).save(folder / f"{number}.png")


def run_in_process(job: JobConfig, engine: Engine | None = None) -> list[dict]:
    """Return the committed rows."""
    prepared = prepare_job(job)
    stage = Caption(prepared.caption_spec, engine or start_engine(prepared.engine_spec), prepared.store)

    async def receipts(batches):
        return [receipt.to_pylist()[0] for receipt in await asyncio.gather(*map(stage, batches))]

    for task in prepared.tasks:
        done = asyncio.run(receipts(list(read_shard(prepared.read_spec, task.shard, task.fragments))))
        fragments = [receipt["fragment"] for receipt in done]
        commit_shard(prepared.store, prepared.run_identity, task.shard, done[0]["num_images"], fragments)
    return committed_rows(Path(job.output))
