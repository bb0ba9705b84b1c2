"""10,000 rows under every kind of selection: each is ok, failed or skipped once, and no request is sent twice."""

import json
from collections import Counter

import pytest
from PIL import Image

from pipeline.readers import list_shards
from tests.odd_images import encode
from tests.readers.shards import tar_of
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
        ({"limit": 2000, "sample": 0.4, "where": {"fields": {"score": {"one_of": [1, 2, 3]}}}}, None),
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


def test_a_text_that_exists_costs_no_request(folder):
    job = reusing(folder, "unused").model_copy(update={"captions": job_of("in", EXISTING).captions})
    for shard in list_shards(job.source)[:2]:
        rows, engine = caption(job, shard, spec_of(job))
        modes = Counter((row["status"], row["mode"]) for row in rows)
        assert modes == {("ok", "existing"): 327, ("ok", "descriptive"): 653, ("failed", "descriptive"): 20}
        assert len(engine.asked) == 653
