"""A parent output and its child in one process, without Ray and without a model: real shards, readers and ledger."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from PIL import Image

from pipeline.config import JobConfig, ModelConfig, parse_job
from pipeline.engines import EngineResponse, EngineStats
from pipeline.flow.prepared_job import PreparedJob, prepare_job, prepare_retry
from pipeline.flow.shard_task import selection_of_task, taken_over_of_task
from pipeline.ledger.commit import commit_shard
from pipeline.ledger.edits import Edit, apply_edits
from pipeline.ledger.fragments import FragmentInfo, read_fragment_info
from pipeline.ledger.retry_rows import replace_rows
from pipeline.recipe import find_weights
from pipeline.stages.captioning import Caption
from pipeline.stages.read_batches import read_shard
from schemas.edit import EditStatus
from tests.odd_images import encode
from tests.outputs import committed_rows
from tests.readers.shards import tar_of

NUM_ROWS = 6
DAMAGED = 4
"""Row of each shard whose image cannot be decoded."""
WITHOUT_ALT = 2
SLOTS = ({"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "booru-tags"})
CHILD = (
    {"slot": "short", "prompt": "Shorten this: {long}"},
    {"slot": "both", "prompt": "Merge {long} with the tags {tags}."},
    {"slot": "plain", "mode": "descriptive"},
)

WEIGHTS = find_weights(ModelConfig(id="standin"))


class Answers:
    """Answers by slot and row; `texts` replaces answers. Remembers what was asked, with its prompts."""

    def __init__(self, **texts: str) -> None:
        self.texts, self.prompts = texts, {}

    @property
    def asked(self) -> list[tuple[str, int, str]]:
        return sorted(self.prompts)

    async def answer(self, request):
        shard, row, slot, _ = request.id.split("#")
        self.prompts[shard, int(row), slot] = request.prompt
        text = self.texts.get(slot, f"the {slot} of {shard} {row}")
        return EngineResponse(id=request.id, text=text, finish_reason="stop", prompt_tokens=1, caption_tokens=1)

    def stats(self):
        return EngineStats()


def image_of(row: int) -> bytes:
    return encode(Image.new("RGB", (20 + row, 40), (row, 0, 0)), "PNG")


def write_source(folder: Path, *names: str, rows: int = NUM_ROWS) -> None:
    folder.mkdir(exist_ok=True)
    for name in names or ("a.tar", "b.tar"):
        files = []
        for row in range(rows):
            fields = {} if row == WITHOUT_ALT else {"alt": f"alt {row}", "meta": {"tags": ["red", "round"]}}
            data = b"damaged" if row == DAMAGED else image_of(row)
            files += [(f"{row:03d}.png", data), (f"{row:03d}.json", json.dumps(fields).encode())]
        (folder / name).write_bytes(tar_of(files))


def parent_job(folder: Path, output: str = "parent", **rest) -> JobConfig:
    return parse_job(
        {
            "source": {"urls": [str(folder / "in")], "metadata_fields": ["alt", "meta"]},
            "output": str(folder / output),
            "model": "standin",
            "captions": list(SLOTS),
            "engine": {"kind": "echo", "batch_images": 2},
            "quality": {"retry": {"attempts": 0}},
            **rest,
        }
    )


def child_job(folder: Path, captions=CHILD, output: str = "child", source=None, **rest) -> JobConfig:
    return parse_job(
        {
            "source": {"captions": str(folder / "parent"), **(source or {})},
            "output": str(folder / output),
            "model": "standin",
            "captions": list(captions),
            "engine": {"kind": "echo", "batch_images": 2},
            "quality": {"retry": {"attempts": 0}},
            **rest,
        }
    )


def run(job: JobConfig, engine: Answers | None = None, extension=None) -> Answers:
    """Caption what is left of a job; return the engine."""
    engine = engine or Answers()
    work_off(prepare_job(job, extension), engine)
    return engine


def retry(job: JobConfig, engine: Answers | None = None, *, statuses=(), edited: bool = False) -> Answers:
    """`retry --rows`; without statuses the stale rows."""
    engine = engine or Answers()
    work_off(prepare_retry(job, statuses, stale=not statuses, edited=edited), engine)
    return engine


def work_off(prepared: PreparedJob, engine: Answers) -> None:
    """What Ray does with the tasks of a job."""
    store, run = prepared.store, prepared.run_identity
    stage = Caption(prepared.caption_spec, engine, store)

    async def receipts(batches):
        return [(await stage(batch)).to_pylist()[0] for batch in batches]

    for task in prepared.tasks:
        read, rows = prepared.read_spec, task.retry_rows and task.retry_rows.rows
        read = replace(
            read,
            selection=selection_of_task(read.selection, task, store, read.duplicates_by),
            taken_over=taken_over_of_task(task, store, prepared.earlier, run),
        )
        infos = [read_fragment_info(store, path, run, task.shard) for path in task.fragments]
        staged = [info for info in infos if isinstance(info, FragmentInfo)]
        done = asyncio.run(receipts(read_shard(read, task.shard, staged, rows)))
        messages = [receipt["message"] for receipt in done if receipt["message"]]
        assert not messages, messages
        fragments = [receipt["fragment"] for receipt in done]
        if task.retry_rows is None:
            commit_shard(store, run, task.shard, done[0]["num_images"], fragments)
        else:
            replace_rows(store, run, task.shard, task.retry_rows, fragments)


def rows_of(folder: Path, output: str = "child") -> dict[tuple[str, int, str], dict]:
    return {(row["shard"], row["row"], row["slot"]): row for row in committed_rows(folder / output)}


def statuses_of(folder: Path, slot: str, output: str = "child", shard: str = "a.tar") -> list[str]:
    return [row["status"] for at, row in rows_of(folder, output).items() if (at[0], at[2]) == (shard, slot)]


def amend(job: JobConfig, shard: str, row: int, slot: str, caption: str | None, editor: str = "ann") -> None:
    """Give a row of an output another text, or reject its text."""
    prepared = prepare_job(job)
    status = EditStatus.REJECTED if caption is None else EditStatus.OK
    edit = Edit(line=1, shard=shard, row=row, slot=slot, editor=editor, status=status, caption=caption)
    changed = apply_edits(
        prepared.store, prepared.run_identity, prepared.plan.shards[shard], [edit], "2026-01-01T00:00:00+00:00"
    )
    assert changed == 1
