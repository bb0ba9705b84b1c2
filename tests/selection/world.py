"""Sources whose rows carry what conditions test, and what a run makes of them without Ray."""

import asyncio
import io
import json
import uuid
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import JobConfig, ModelConfig, parse_job
from pipeline.engines import EngineResponse
from pipeline.flow.prepared_job import prepare_job, read_spec
from pipeline.ledger.commit import commit_shard
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info, write_fragment
from pipeline.ledger.taken_over import read_taken_over
from pipeline.readers import list_shards
from pipeline.recipe import find_weights
from pipeline.stages.captioning import Caption, CaptionSpec
from pipeline.stages.read_batches import ReadSpec, read_shard
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from tests.memory_store import MemoryStore
from tests.odd_images import encode
from tests.readers.shards import tar_of

SLOTS = ({"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "booru-tags"})
NUM_ROWS = 12


def image(row: int, image_format: str = "PNG") -> bytes:
    """Row 0 is 20 x 40 px, row 1 is 21 x 40, and so on."""
    return encode(Image.new("RGB", (20 + row, 40), (row, 0, 0)), image_format)


def fields_of(row: int) -> dict:
    """Row 3 has no score, that of row 4 is a text; every fourth row has a caption, row 8 a blank one."""
    score = {} if row == 3 else {"score": "many" if row == 4 else row}
    return {**score, "rating": "safe" if row % 2 else "odd", "caption": f" text {row} " if row % 4 == 0 else None} | (
        {"caption": "--"} if row == 8 else {}
    )


def write_tar(folder: Path, name: str = "a.tar", rows: int = NUM_ROWS, damaged: tuple[int, ...] = ()) -> None:
    files = []
    for row in range(rows):
        data = b"damaged" if row in damaged else image(row)
        files += [(f"{row:03d}.png", data), (f"{row:03d}.json", json.dumps(fields_of(row)).encode())]
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(tar_of(files))


def write_parquet(folder: Path, name: str = "a.parquet", rows: int = NUM_ROWS, *, group_rows: int = 4) -> None:
    table = pa.table(
        {
            "image": [{"bytes": image(row), "path": f"{row:03d}.png"} for row in range(rows)],
            "score": [None if row in (3, 4) else row for row in range(rows)],
            "rating": [fields_of(row)["rating"] for row in range(rows)],
            "caption": [fields_of(row)["caption"] for row in range(rows)],
        }
    )
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / name, row_group_size=group_rows)


def job_of(folder: Path, captions=SLOTS, **source) -> JobConfig:
    return parse_job(
        {
            "source": {"urls": [str(folder)], **source},
            "output": "memory://o",
            "model": "standin",
            "captions": list(captions),
            "engine": {"kind": "echo", "batch_images": 2},
        }
    )


WEIGHTS = find_weights(ModelConfig(id="standin"))
"""Found once: to hash them takes longer than most tests here."""


def spec_of(job: JobConfig) -> ReadSpec:
    return read_spec(job, WEIGHTS)


class CountingEngine:
    """Answers with the slot; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, str]] = []

    async def answer(self, question):
        shard, row, slot, _ = question.id.split("#")
        self.asked.append((shard, int(row), slot))
        return EngineResponse(id=question.id, text=f"answer of {row} {slot}", finish_reason="stop")


def caption(
    job: JobConfig, shard: Shard, spec: ReadSpec | None = None, run: RunIdentity | None = None
) -> tuple[list[dict], CountingEngine]:
    """Read and caption a shard; return its caption rows in order, and the engine."""
    spec = spec or spec_of(job)
    slots = tuple(name for slot in job.captions for name in slot.names)
    run = run or RunIdentity(recipe="r" * 16, slots=slots, versions={})
    engine, store = CountingEngine(), MemoryStore(f"memory://{uuid.uuid4().hex}")
    stage = Caption(CaptionSpec(job=job, run=run), engine, store)

    async def all_of_them():
        return [await stage(batch) for batch in read_shard(spec, shard, [])]

    receipts = [receipt.to_pylist()[0] for receipt in asyncio.run(all_of_them())]
    rows: list[dict] = []
    for receipt in receipts:
        info = read_fragment_info(store, receipt["fragment"], run, shard)
        assert isinstance(info, FragmentInfo), info
        assert info.rows.tolist() == sorted(receipt["rows"])
        rows += pq.read_table(io.BytesIO(store.get(receipt["fragment"]))).to_pylist()
    order = {slot: index for index, slot in enumerate(run.slots)}
    return sorted(rows, key=lambda row: (row["row"], order[row["slot"]])), engine


def only_shard(job: JobConfig) -> Shard:
    [shard] = list_shards(job.source)
    return shard


def commit(prepared, shard, rows):
    num_images = len({row["row"] for row in rows})
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    fragment = write_fragment(prepared.store, prepared.run_identity, shard, num_images, table)
    commit_shard(prepared.store, prepared.run_identity, shard, num_images, [fragment])


def reusing(tmp_path, output, *earlier, **source):
    """A job over `in` that takes over earlier outputs."""
    job = job_of(tmp_path / "in", **source)
    return job.model_copy(
        update={"output": str(tmp_path / output), "reuse": tuple(str(tmp_path / name) for name in earlier)}
    )


def run_all(job):
    """What `caption` does without Ray: commit the remaining shards; return their rows and what was asked."""
    prepared = prepare_job(job)
    asked, rows = [], []
    for task in prepared.tasks:
        earlier = [prepared.earlier[index] for index in task.earlier]
        spec = replace(
            prepared.read_spec,
            selection=prepared.read_spec.selection.up_to(task.end_row),
            taken_over=read_taken_over(earlier, prepared.run_identity, task.shard),
        )
        of_shard, engine = caption(job, task.shard, spec, prepared.run_identity)
        rows += of_shard
        asked += engine.asked
        commit(prepared, task.shard, of_shard)
    return rows, asked
