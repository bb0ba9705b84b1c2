"""10,000 rows under every kind of selection: each is ok, failed or skipped once, and no request is sent twice."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from pipeline.flow.prepared_job import prepare_job
from pipeline.readers import list_shards
from tests.index.world import config_of, index_all
from tests.odd_images import encode
from tests.readers.shards import tar_of
from tests.selection.runs import run_job, run_tasks
from tests.selection.world import caption, job_of, reusing, run_all, spec_of

pytestmark = pytest.mark.long

SHARDS, ROWS = 10, 1000
EXISTING = ({"slot": "long", "mode": "descriptive", "existing": {"field": "caption", "when": {"min_length": 3}}},)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of 16 to 47 px; one in 50 is damaged, one in 3 has a caption, one in 7 lacks its score."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "in").mkdir()
    images = [encode(Image.new("RGB", (16 + size, 16), (size, 0, 0)), "PNG") for size in range(32)]
    for shard in range(SHARDS):
        files = []
        for row in range(ROWS):
            fields = {} if row % 7 == 0 else {"score": row % 10}
            fields |= {"caption": f"text {row}"} if row % 3 == 0 else {}
            files.append((f"{row:04d}.png", b"damaged" if row % 50 == 1 else images[row % 32]))
            files.append((f"{row:04d}.json", json.dumps(fields).encode()))
        (folder / "in" / f"{shard}.tar").write_bytes(tar_of(files))
    return folder


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, {"ok": 9800, "failed": 200}),
        ({"where": {"fields": {"score": {"min": 5}}}}, None),
        ({"where": {"width": {"min": 32}, "fields": {"score": {"present": True}}}}, None),
        ({"where": {"any_of": [{"bytes": {"max": 10}}, {"fields": {"score": {"equals": 3}}}]}}, None),
        ({"sample": 0.1}, None),
        ({"sample": 0.5, "where": {"long_side": {"max": 40}}}, None),
        ({"limit": 3333}, {"ok": 3266, "failed": 67, "skipped": 667}),
        ({"limit": 800, "sample": 0.4, "where": {"fields": {"score": {"one_of": [1, 2, 3]}}}}, None),
    ],
)
def test_each_row_once(folder, tmp_path, source, expected):
    job = reusing(folder, tmp_path / "out", **source)
    job = job.model_copy(update={"engine": job.engine.model_copy(update={"batch_images": 64})})
    rows, asked = run_all(job)
    identities = Counter((row["shard"], row["row"], row["slot"]) for row in rows)
    statuses = Counter(row["status"] for row in rows if row["slot"] == "long")
    print(source, dict(statuses), len(asked), "requests")
    assert set(identities.values()) == {1}
    assert len(identities) % (2 * ROWS) == 0
    assert "limit" in source or len(identities) == 2 * SHARDS * ROWS
    assert set(Counter(asked).values()) == {1}
    assert set(asked) == {(row["shard"], row["row"], row["slot"]) for row in rows if row["status"] == "ok"}
    assert expected is None or statuses == expected
    assert statuses["ok"] + statuses["failed"] == source.get("limit", statuses["ok"] + statuses["failed"])


COPIES = 5
"""One image in so many is a copy of another one."""


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """10,000 images in 10 shards; of each five the last one is a copy of one that comes before it, in any shard."""
    folder = tmp_path_factory.mktemp("copies")
    rng, pictures = random.Random(1), []
    (folder / "in").mkdir()
    for shard in range(SHARDS):
        files = []
        for row in range(ROWS):
            if row % COPIES < COPIES - 1:
                number = len(pictures)
                pictures.append(encode(Image.new("RGB", (16, 16), (number % 256, number // 256, 9)), "PNG"))
            else:
                number = rng.randrange(len(pictures))
            files.append((f"{row:04d}.png", pictures[number]))
        (folder / "in" / f"{shard}.tar").write_bytes(tar_of(files))
    index_all(config_of(folder / "in", folder / "index"))
    return folder


def job_with_copies(copies, output, **source):
    made = job_of(copies / "in", duplicates={"index": str(copies / "index")}, **source)
    engine = made.engine.model_copy(update={"batch_images": 64})
    return made.model_copy(update={"output": str(output), "engine": engine})


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_fifth_of_copies_costs_a_fifth_fewer_requests(copies, tmp_path, seed):
    rows, asked = run_job(job_with_copies(copies, tmp_path / "out"), seed=seed)
    counts = Counter((row["slot"], row["status"], row["reason"]) for row in rows.values())
    print(dict(counts), len(asked), "requests")
    assert len(rows) == 2 * SHARDS * ROWS
    assert len(asked) == len(set(asked)) == 2 * SHARDS * ROWS * (COPIES - 1) // COPIES
    assert {row["row"] % COPIES for row in rows.values() if row["status"] == "skipped"} == {COPIES - 1}


def test_runs_that_end_after_each_shard_ask_the_same_images(copies, tmp_path):
    job, asked = job_with_copies(copies, tmp_path / "out", sample=0.5), []
    for _ in range(SHARDS + 1):
        asked += run_tasks(prepare_job(job), stop_after=1)
    whole = run_tasks(prepare_job(job_with_copies(copies, tmp_path / "whole", sample=0.5)))
    assert sorted(asked) == sorted(whole)


def test_a_filter_that_is_loosened_twice_asks_each_row_once(folder, tmp_path):
    asked = []
    for score in (8, 5, 1):
        job = reusing(folder, tmp_path / "out", where={"fields": {"score": {"min": score}}})
        rows, of_run = run_job(job.model_copy(update={"output": str(tmp_path / "out")}), extend=score < 8)
        asked += of_run
    assert {row["status"] for row in rows.values()} == {"ok", "failed", "skipped"}
    fresh = job.model_copy(update={"output": str(tmp_path / "fresh")})
    expected, of_fresh = run_job(fresh)
    assert sorted(asked) == sorted(of_fresh)
    assert len(asked) == len(set(asked))
    kept = ("status", "caption", "prompt", "seed", "reason")
    assert {key: [row[name] for name in kept] for key, row in rows.items()} == {
        key: [row[name] for name in kept] for key, row in expected.items()
    }


def test_a_text_that_exists_costs_no_request(folder):
    job = reusing(folder, "unused").model_copy(update={"captions": job_of("in", EXISTING).captions})
    for shard in list_shards(job.source)[:2]:
        rows, engine = caption(job, shard, spec_of(job))
        modes = Counter((row["status"], row["mode"]) for row in rows)
        assert modes == {("ok", "existing"): 327, ("ok", "descriptive"): 653, ("failed", "descriptive"): 20}
        assert len(engine.asked) == 653
