"""A selection that is decided by an index: the same rows as without one, fewer images read, and an exact plan."""

import json
import os

import pytest
import yaml
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.errors import ConfigError, OutputMismatch
from pipeline.flow.prepared_job import prepare_job, with_index
from pipeline.ledger.limit_record import read_limit
from pipeline.readers import sample_reader
from pipeline.stages.index_facts import index_facts
from pipeline.stages.limit_rows import find_limit
from tests.index.world import config_of, index_all, write_source
from tests.selection.world import caption, job_of, only_shard, reusing, run_all, spec_of, write_parquet, write_tar

CONDITIONS = {
    "width": {"width": {"min": 25}},
    "format": {"format": ["JPEG"]},
    "bytes": {"bytes": {"max": 100}},
    "aspect": {"aspect_ratio": {"max": 0.7}},
    "fields": {"fields": {"rating": {"equals": "odd"}}},
    "both": {"width": {"min": 25}, "fields": {"rating": {"equals": "odd"}}},
    "any": {"any_of": [{"width": {"max": 22}}, {"fields": {"score": {"min": 10}}}]},
    "none": {"none_of": [{"long_side": {"min": 1}, "fields": {"score": {"min": 3}}}]},
}


@pytest.fixture
def world(tmp_path):
    """A source, and an index of it with the fields that conditions test."""
    write_source(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index", metadata_fields=("score", "rating", "caption")))
    return tmp_path


def decisions(rows):
    columns = ("shard", "row", "slot", "status", "reason", "message", "width", "image_format")
    asked = [{name: row[name] for name in columns} for row in rows]
    # What is known of a skipped image depends on what was read.
    return [row if row["status"] != "skipped" else {**row, "width": 0, "image_format": ""} for row in asked]


@pytest.mark.parametrize("where", CONDITIONS.values(), ids=CONDITIONS)
def test_the_rows_are_those_without_an_index(world, where):
    plain, asked = run_all(reusing(world, "plain", where=where))
    indexed, asked_by_index = run_all(reusing(world, "indexed", where=where, index=str(world / "index")))
    assert decisions(indexed) == decisions(plain)
    assert sorted(asked_by_index) == sorted(asked)


def test_an_image_that_the_index_decides_is_not_read(tmp_path, monkeypatch):
    write_tar(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index"))
    job = job_of(tmp_path / "in", where={"width": {"min": 25}}, index=str(tmp_path / "index"))
    read = []
    image = sample_reader.SampleShard._image

    def noted(self, sample):
        read.append(sample.key)
        return image(self, sample)

    monkeypatch.setattr(sample_reader.SampleShard, "_image", noted)
    rows, _ = caption(job, only_shard(job), with_index(spec_of(job)))
    assert read == [f"{row:03d}" for row in range(5, 12)]
    assert {row["message"] for row in rows if row["status"] == "skipped"} == {"source.where.width: {min: 25}"}
    read.clear()
    caption(job, only_shard(job), spec_of(job))
    assert len(read) == 12


def test_a_limit_is_found_in_the_index_alone(world, monkeypatch):
    job = job_of(world / "in", where={"width": {"min": 25}}, limit=9, index=str(world / "index"))
    shards = list(prepare_job(reusing(world, "first")).plan.shards.values())
    expected = find_limit(spec_of(job), shards, 9)
    monkeypatch.setattr("pipeline.stages.limit_rows.open_shard", None)
    assert find_limit(with_index(spec_of(job)), shards, 9) == expected
    prepared = prepare_job(reusing(world, "out", where={"width": {"min": 25}}, limit=9, index=str(world / "index")))
    assert read_limit(prepared.store) == expected


def test_an_index_of_another_source_is_refused_by_name(world):
    write_parquet(world / "in", "c.parquet")
    with pytest.raises(OutputMismatch, match=r"index: is not an index of this source: of 3 shards 1 do not match: c\.parquet is not in it\. Run `joyfleet index`"):  # fmt: skip  # noqa: E501
        prepare_job(reusing(world, "out", where={"width": {"min": 25}}, index=str(world / "index")))


def test_a_stale_index_is_refused_by_name(world):
    os.utime(world / "in/a.tar", ns=(1, 1))
    with pytest.raises(OutputMismatch, match=r"a\.tar was \d+ bytes, etag mtime-\d+, when it was indexed, and is \d+"):
        prepare_job(reusing(world, "out", index=str(world / "index")))


def test_an_unfinished_index_is_refused_by_name(world):
    (world / "index/index/b.parquet.parquet").unlink()
    with pytest.raises(OutputMismatch, match=r"b\.parquet has no rows in it yet"):
        prepare_job(reusing(world, "out", index=str(world / "index")))


def test_a_file_of_another_state_of_its_shard_is_refused_where_it_is_read(world):
    job = job_of(world / "in", where={"width": {"min": 25}}, index=str(world / "index"))
    shards = prepare_job(reusing(world, "first")).plan.shards
    changed = type(shards["a.tar"])("a.tar", shards["a.tar"].url, shards["a.tar"].size, "mtime-5")
    _, facts = index_facts(spec_of(job).source, job.images)
    with pytest.raises(OutputMismatch, match=r"a\.tar\.parquet: etag is 'mtime-\d+', expected 'mtime-5'"):
        facts.of_images(changed)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("images", "apply_exif_orientation", False), ("images", "max_pixels", 77), ("source", "images_per_shard", 3)],
)
def test_an_index_of_other_settings_is_refused_by_key(world, section, key, value):
    job = reusing(world, "out", where={"width": {"min": 25}}, index=str(world / "index"))
    changed = getattr(job, section).model_copy(update={key: value})
    with pytest.raises(OutputMismatch, match=rf"made with other settings .*\n  {section}\.{key}: "):
        prepare_job(job.model_copy(update={section: changed}))


def test_a_folder_that_is_no_index_is_refused(world):
    with pytest.raises(ConfigError, match=r"no run\.json"):
        prepare_job(reusing(world, "out", index=str(world / "in")))
    assert not (world / "out/run.json").exists()


def test_an_index_is_no_part_of_recipe_and_selection(world):
    plain = prepare_job(reusing(world, "out", where={"width": {"min": 25}}))
    indexed = prepare_job(reusing(world, "out", where={"width": {"min": 25}}, index=str(world / "index")))
    assert plain.recipe.fingerprint == indexed.recipe.fingerprint
    assert json.loads((world / "out/run.json").read_text())["selection"] == {"where": {"width": {"min": 25}}}


def plan_of(world, *words, code=0, **source):
    job = reusing(world, "new", **source).model_dump(mode="json", exclude_defaults=True)
    path = world / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    done = CliRunner().invoke(cli, ["plan", str(path), "--rows", "0", *words])
    assert done.exit_code == code, done.output
    return done


def counted(world, *words, **source):
    return json.loads(plan_of(world, "--json", "--index", str(world / "index"), *words, **source).stdout)


@pytest.mark.parametrize("where", CONDITIONS.values(), ids=CONDITIONS)
def test_a_plan_with_an_index_counts_what_a_run_asks(world, where):
    rows, _ = run_all(reusing(world, "out", where=where))
    plan = counted(world, where=where)
    skipped = [row["message"] for row in rows if row["status"] == "skipped" and row["slot"] == "long"]
    assert plan["selection"]["counted"]
    assert plan["left"]["images"] == 24 - len(skipped)
    assert plan["source"]["images"] == 24
    expected = {condition: skipped.count(condition) for condition in set(skipped)}
    assert (plan["selection"]["screened"] or {"skipped": {}})["skipped"] == expected


def test_a_plan_with_an_index_reads_no_shard(world, monkeypatch):
    for name in ("readers.formats.open_shard", "readers.count_estimate.count_images", "stages.source_sample.open_head"):
        monkeypatch.setattr(f"pipeline.{name}", None)
    assert 0 < counted(world, where={"width": {"min": 25}}, sample=0.5)["left"]["images"] < 14


def test_a_plan_counts_limit_sample_and_existing_texts(world):
    limited = counted(world, where={"width": {"min": 25}}, limit=9)
    assert (limited["left"]["images"], limited["left"]["shards"]) == (9, 2)
    small = counted(world, where={"width": {"min": 25}}, limit=5)
    assert (small["left"]["images"], small["left"]["shards"]) == (5, 1)
    sampled = counted(world, sample=0.25)
    rows, _ = run_all(reusing(world, "out", sample=0.25))
    assert sampled["left"]["images"] == sum(row["status"] != "skipped" for row in rows) / 2
    captions = [{"slot": "long", "mode": "descriptive", "existing": {"field": "caption"}}]
    job = reusing(world, "new").model_copy(update={"captions": job_of(world / "in", captions).captions})
    path = world / "existing.yaml"
    path.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))
    words = ["plan", str(path), "--rows", "0", "--json", "--index", str(world / "index")]
    plan = json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).stdout)
    _, asked = run_all(job)
    assert plan["estimate"]["captions"] == len(asked)


def test_a_plan_prints_that_it_counted(world):
    printed = plan_of(world, "--index", str(world / "index"), where={"width": {"min": 25}}).stdout
    assert "24 images (counted)" in printed
    assert "14 images, counted by the index" in printed


def test_a_plan_of_an_index_without_a_tested_field_is_an_estimate_and_says_so(tmp_path):
    write_tar(tmp_path / "in")
    index_all(config_of(tmp_path / "in", tmp_path / "index"))
    words = ("--json", "--index", str(tmp_path / "index"))
    done = plan_of(tmp_path, *words, where={"fields": {"score": {"min": 3}}})
    assert not json.loads(done.stdout)["selection"]["counted"]
    assert (
        "the index does not have all of the fields score, which decide about rows, so the plan is an estimate"
        in done.stderr
    )


def test_a_plan_with_a_stale_index_is_refused(world):
    os.utime(world / "in/a.tar", ns=(1, 1))
    done = plan_of(world, "--index", str(world / "index"), code=1)
    assert "a.tar was " in str(done.exception)


def test_a_plan_counts_duplicates_once(tmp_path):
    write_tar(tmp_path / "in", "a.tar")
    write_tar(tmp_path / "in", "b.tar", damaged=(3,))
    index_all(config_of(tmp_path / "in", tmp_path / "index"))
    duplicates = {"index": str(tmp_path / "index")}
    plan = json.loads(plan_of(tmp_path, "--json", duplicates=duplicates).stdout)
    assert plan["selection"]["counted"]
    assert plan["left"]["images"] == 13
    assert plan["selection"]["screened"]["skipped"] == {"source.duplicates: {by: sha256}": 11}
    sampled = json.loads(plan_of(tmp_path, "--json", duplicates=duplicates, where={"width": {"min": 25}}).stdout)
    assert sampled["left"]["images"] == 8  # the damaged one is asked for its header, and fails
