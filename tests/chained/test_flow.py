"""Parent and child as their users run them: the command line, Ray, and an output in S3."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.config import load_job, parse_job
from pipeline.prompts import check_captions
from pipeline.standin.demo_data import draw_dataset
from pipeline.storage import open_store
from tests.cli import OWN_RAY, run
from tests.outputs import committed_rows, identities
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

PAGE = Path(__file__).parents[2] / "docs" / "chained.md"
NUM_IMAGES = 40


def write(folder: Path, name: str, **keys: object) -> str:
    job = {
        "model": "standin",
        "engine": {"kind": "echo", "batch_images": 8},
        "cluster": {**OWN_RAY, "stall_timeout_s": 120},
        **keys,
    }
    (folder / name).write_text(yaml.safe_dump(job))
    return name


def parent_of(folder: Path, source: str, output: str) -> str:
    slots = [{"slot": "long", "mode": "descriptive"}, {"slot": "tags", "mode": "booru-tags"}]
    return write(folder, "parent.yaml", source=source, output=output, captions=slots)


def child_of(folder: Path, parent: str, output: str) -> str:
    slots = [{"slot": "short", "prompt": "Shorten: {long}"}, {"slot": "both", "prompt": "{long} {tags}"}]
    return write(folder, "child.yaml", source={"captions": parent}, output=output, captions=slots)


def by_identity(output: Path) -> dict[tuple[str, int, str], dict]:
    return {(row["shard"], row["row"], row["slot"]): row for row in committed_rows(output)}


def done(folder: Path, *words: str, **environment: str) -> str:
    result = run(folder, *words, **environment)
    assert result.code == 0, result
    return result.out + result.err


@pytest.mark.slow
@pytest.mark.long
def test_a_chain_is_captioned_edited_retried_extended_and_verified(tmp_path):
    draw_dataset(tmp_path / "drawn", num_images=2 * NUM_IMAGES, seed=1, shard_rows=10)
    tars = sorted((tmp_path / "drawn" / "tar").iterdir())
    (tmp_path / "in").mkdir()
    for tar in tars[:2]:
        tar.rename(tmp_path / "in" / tar.name)
    parent, child = parent_of(tmp_path, "in", "parent"), child_of(tmp_path, "parent", "child")
    done(tmp_path, "caption", parent)
    assert "2 of 2 committed" in done(tmp_path, "caption", child)
    before, texts = by_identity(tmp_path / "child"), by_identity(tmp_path / "parent")
    for (shard, row, slot), written in before.items():
        long = texts[shard, row, "long"]["caption"]
        expected = f"Shorten: {long}" if slot == "short" else f"{long} {texts[shard, row, 'tags']['caption']}"
        assert written["prompt"] == expected
    (shard, row, _), *_ = before
    (tmp_path / "edits.csv").write_text(f"shard,row,slot,caption,editor\n{shard},{row},tags,red cross,ann\n")
    done(tmp_path, "amend", "parent", "edits.csv")
    assert "stale       1 rows in 1 shards" in done(tmp_path, "status", "child", "--stale")
    out = done(tmp_path, "retry", "child", "--rows", "stale")
    assert "1 images in 1 shards have rows that are stale" in out
    after = by_identity(tmp_path / "child")
    assert [at for at in after if after[at] != before[at]] == [(shard, row, "both")]
    assert after[shard, row, "both"]["prompt"].endswith(" red cross")
    assert "stale       0 rows in 0 shards" in done(tmp_path, "status", "child", "--stale")
    tars[2].rename(tmp_path / "in" / tars[2].name)
    done(tmp_path, "caption", parent, "--extend")
    assert "1 new shards" in done(tmp_path, "caption", child, "--extend")
    assert set(identities(committed_rows(tmp_path / "child")).values()) == {1}
    assert len(committed_rows(tmp_path / "child")) == 3 * 10 * 2
    assert "each exactly once" in done(tmp_path, "verify", "child")


@pytest.mark.slow
@pytest.mark.long
def test_a_parent_in_s3_is_read_by_one_request_for_each_shard(tmp_path, s3_environment):  # noqa: F811 - a fixture
    draw_dataset(tmp_path / "in", num_images=NUM_IMAGES, seed=1, shard_rows=10)
    source = open_store("s3://out/chain/photos")
    for file in (tmp_path / "in").rglob("*.*"):
        source.put(file.relative_to(tmp_path / "in").as_posix(), file.read_bytes())
    parent, output = "s3://out/chain/parent", "s3://out/chain/child"
    done(tmp_path, "caption", parent_of(tmp_path, source.url, parent))
    child = child_of(tmp_path, parent, output)
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        done(tmp_path, "caption", child, AWS_ENDPOINT_URL=endpoint)
    read = [path for _, method, path in script.asked if method == "GET" and "chain/parent/captions/" in path]
    assert len(read) == len(set(read)) == len(list(open_store(parent).list("captions")))
    done(tmp_path, "verify", output)
    state = json.loads(done(tmp_path, "status", output, "--stale", "--json"))
    assert state["stale"] == {"rows": 0, "edited": 0, "shards": 0}


def test_the_documented_jobs_are_accepted():
    blocks = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1:]
    jobs = [parse_job(yaml.safe_load(block.partition("```")[0])) for block in blocks]
    assert [job.source.captions for job in jobs] == [None, "s3://bucket/captions/photos-v1"]
    assert jobs[1].field_policies.keys() == {"captions.long", "alt"}
    for job in jobs:
        check_captions(job)


def test_a_job_file_with_a_parent_is_read_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = load_job(child_of(tmp_path, "parent", "child"), ["source.captions=elsewhere"])
    assert (job.source.captions, job.source.urls) == ("elsewhere", ())
