"""An output in its own source is refused before anything is written; an existing one is resumed."""

import json

import pytest

from jobs.plan import make_plan
from pipeline.config import parse_job
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import prepare_job
from pipeline.standin.demo_data import draw_dataset

REFUSED = r"output .*: is inside the source .*; give a folder outside the source"


def job_of(source, output):
    captions = {"slot": "long", "mode": "descriptive"}
    data = {"source": str(source), "output": str(output), "model": "standin", "captions": captions}
    return parse_job({**data, "engine": {"kind": "echo"}})


@pytest.fixture
def photos(tmp_path):
    draw_dataset(tmp_path / "photos", num_images=4, seed=1, shard_rows=2)
    return tmp_path / "photos"


@pytest.mark.parametrize("output", ["photos", "photos/out", "link/out", "photos/../photos/x/out"])
def test_an_output_in_its_source_is_refused_and_nothing_is_written(tmp_path, photos, monkeypatch, output):
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for attempt in (lambda job: prepare_job(job), lambda job: make_plan(job, None, {})):
        with pytest.raises(ConfigError, match=REFUSED):
            attempt(job_of("photos", output))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_an_earlier_version_created_in_its_source_is_resumed(tmp_path, photos):
    """Its plan is that of a run elsewhere, whose files an earlier version would have written here."""
    planned = prepare_job(job_of(photos, tmp_path / "out")).plan
    (tmp_path / "out").rename(photos / "out")
    prepared = prepare_job(job_of(photos, photos / "out"))
    assert prepared.plan.shards == planned.shards
    assert prepared.plan.unplanned == ()
    assert any("files of JoyFleet's output" in remark for remark in prepared.remarks)
    assert json.loads((photos / "out" / "run.json").read_text())["about"]["job"]["output"] == str(tmp_path / "out")
