"""The stand-in's trained-in loops through real vLLM and the caption stage: stopped, refused, mended."""

import asyncio
import dataclasses
import io
import random
import tarfile
import uuid
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

from pipeline.config import parse_job
from pipeline.ledger.footer import RunIdentity
from pipeline.readers import list_shards
from pipeline.stages.captioning import Caption, CaptionSpec
from pipeline.stages.read_batches import ReadSpec, read_shard
from pipeline.standin.draw_picture import encode, render
from pipeline.standin.world import Scene, Special, sample_scene
from tests.cli import run, write_job
from tests.e2e.conftest import GEOMETRY
from tests.memory_store import MemoryStore

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

TAGS = [{"slot": "booru", "mode": "booru-tags"}, {"slot": "prompt", "mode": "training-prompt"}]
ALL = [*TAGS, {"slot": "long", "mode": "descriptive", "length": "long"}, {"slot": "critic", "mode": "art-critic"}]


@contextmanager
def sampling(running, **changes):
    """The engine with other sampling, as a job would have started it."""
    engine, spec = running.engine, running.engine._spec
    engine._spec = dataclasses.replace(spec, sampling=spec.sampling.model_copy(update=changes))
    try:
        yield
    finally:
        engine._spec = spec


def drawn(folder, scenes):
    rng = random.Random(7)
    with tarfile.open(folder / "s.tar", "w") as tar:
        for number, scene in enumerate(scenes):
            data = encode(render(scene, rng.getrandbits(40), (256, 256)), "png")
            info = tarfile.TarInfo(f"{number:04d}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def captioned(running, folder, scenes, captions, **rest):
    """Return the rows of the scenes, captioned by the stage on the session's engine."""
    if not (folder / "s.tar").exists():
        drawn(folder, scenes)
    raw = {"source": str(folder), "output": "memory://o", "model": "standin", "captions": captions, **rest}
    job = parse_job(raw)
    facts = RunIdentity(recipe="r" * 16, slots=tuple(slot["slot"] for slot in captions), versions={})
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    spec = ReadSpec(source=job.source, images=job.images, geometry=GEOMETRY, batch_images=16)
    stage = Caption(CaptionSpec(job=job, run=facts), running.engine, store)
    [shard] = list_shards(job.source)

    async def all_of_them():
        return await asyncio.gather(*(stage(batch) for batch in read_shard(spec, shard, ())))

    with sampling(running, **{**job.sampling.model_dump(), "max_tokens": None}):
        receipts = [receipt.to_pylist()[0] for receipt in running.do(all_of_them())]
    tables = [pq.read_table(io.BytesIO(store.get(receipt["fragment"]))) for receipt in receipts]
    return [row for table in tables for row in table.to_pylist()]


def test_a_loop_that_no_retry_ends_is_stopped_rejected_and_reported(running, tmp_path):
    scenes = [Scene(special=Special.GLITCH)] * 8
    rows = captioned(running, tmp_path, scenes, TAGS)
    for row in rows:
        assert (row["status"], row["reason"], row["finish_reason"]) == ("rejected", "loop", "repetition"), row
        assert (row["attempts"], row["earlier_reasons"]) == (3, ["loop", "loop"])
        assert row["caption"] is None
        assert row["rejected_text"].replace("_", " ").count("magenta squares") >= 4


def test_stopping_a_loop_saves_most_of_its_tokens(running, tmp_path):
    scenes = [Scene(special=Special.GLITCH)] * 8
    tokens = {}
    for stop_loops in (True, False):
        rest = {"sampling": {"stop_loops": stop_loops}, "quality": {"retry": {"attempts": 0}}}
        rows = captioned(running, tmp_path, scenes, TAGS, **rest)
        assert {(row["status"], row["reason"]) for row in rows} == {("rejected", "loop")}
        tokens[stop_loops] = sum(row["caption_tokens"] for row in rows)
    print(f"tokens of {len(rows)} loops: {tokens[False]} without stop_loops, {tokens[True]} with")
    assert tokens[True] <= 0.25 * tokens[False]


def test_a_retry_ends_a_loop_that_was_chance(running, tmp_path):
    scenes = [Scene(special=Special.STATIC)] * 48
    first = captioned(running, tmp_path, scenes, TAGS, quality={"retry": {"attempts": 0}})
    looped = [(row["row"], row["slot"]) for row in first if row["status"] == "rejected"]
    again = captioned(running, tmp_path, scenes, TAGS)
    mended = [row for row in again if (row["row"], row["slot"]) in looped and row["status"] == "ok"]
    print(f"{len(looped)} of {len(first)} looped at first; {len(mended)} of them mended by two further attempts")
    assert len(looped) >= 0.2 * len(first)
    assert len(mended) >= 0.6 * len(looped)
    for row in mended:
        assert row["attempts"] > 1
        assert set(row["earlier_reasons"]) == {"loop"}
        assert row["rejected_text"]
        assert row["caption"].replace("_", " ").startswith("static noise, no background")
    untouched = [row for row in again if (row["row"], row["slot"]) not in looped]
    assert all(row["attempts"] == 1 for row in untouched)
    assert captioned(running, tmp_path, scenes, TAGS) == again


def test_a_greedy_run_draws_when_it_asks_again(running, tmp_path):
    rows = captioned(running, tmp_path, [Scene(special=Special.STATIC)] * 4, TAGS, sampling={"temperature": 0})
    assert len({row["seed"] for row in rows}) == len(rows)
    assert all(row["status"] == "ok" or row["attempts"] == 3 for row in rows)


def test_clean_pictures_lose_nothing(running, tmp_path):
    rng = random.Random(3)
    rows = captioned(running, tmp_path, [sample_scene(rng) for _ in range(24)], ALL)
    assert [row for row in rows if row["status"] != "ok" or row["attempts"] != 1] == []
    without = captioned(running, tmp_path, [], ALL, sampling={"stop_loops": False})
    assert [row["caption"] for row in without] == [row["caption"] for row in rows]


@pytest.mark.long
def test_the_whole_way_from_the_command_line(tmp_path):
    """Pictures that loop, draw, caption through Ray and vLLM, and measure: nothing looped is a caption."""
    options = ["--images", "120", "--special-share", "0.4", "--shard-images", "30", "--seed", "5"]
    assert run(tmp_path, "make-demo-data", "in", *options).code == 0
    engine = {"kind": "vllm", "batch_images": 16, "max_num_seqs": 16}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", captions=ALL, engine=engine)
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    measured = run(tmp_path, "quality", str(tmp_path / "out"))
    assert measured.code == 0, measured
    print(measured.out)
    folder = tmp_path / "out" / "report" / "quality"
    groups = {item["mode"]: item for item in pq.read_table(folder / "groups.parquet").to_pylist()}
    assert sum(item["rows"] for item in groups.values()) == 120 * len(ALL)
    assert groups["booru-tags"]["repaired"] > 0
    assert groups["booru-tags"]["rejected"] > groups["descriptive"]["rejected"]
    reasons = pq.read_table(folder / "reasons.parquet").to_pylist()
    names = {item["name"] for item in reasons if item["kind"] == "rejected"}
    assert names == {"loop", "empty_caption"}
    rows = pq.read_table(tmp_path / "out" / "captions").to_pylist()
    assert max(row["caption"].count("magenta") for row in rows if row["status"] == "ok") <= 2
