"""The table of formats, and one from outside the package through every step that reads a source."""

import csv
import hashlib
import io
import json

import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.source_summary import show_source
from pipeline.config import SourceConfig, parse_job
from pipeline.errors import ConfigError, ShardUnreadable
from pipeline.ledger.verification import SourceImage, verify_shard
from pipeline.readers import FORMATS, list_shards, open_head, open_shard
from pipeline.readers.count_estimate import estimate_counts
from pipeline.readers.formats import format_of_path
from schemas.status import Reason
from tests.export.world import MAX_BYTES, RUN, caption_all, export, image
from tests.readers import toy_format


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.tar", "tar"),
        ("B.TAR", "tar"),
        ("a.tar.gz", "tar.gz"),
        ("a.tgz", "tar.gz"),
        ("a.zip", "zip"),
        ("data/train-00000-of-00001.parquet", "parquet"),
        ("images-00000", "parts of folders of images"),
        ("tar", "parts of folders of images"),
    ],
)
def test_the_format_follows_from_the_suffix(path, name):
    assert format_of_path(path).name == name


def test_every_format_has_its_own_suffixes():
    suffixes = [suffix for form in FORMATS.values() for suffix in form.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A source of two shards in the toy format, five images."""
    monkeypatch.setitem(FORMATS, toy_format.FORMAT.name, toy_format.FORMAT)
    (tmp_path / "in").mkdir()
    rows = [(f"k{number}", image(number), {"artist": f"a{number}"}) for number in range(5)]
    (tmp_path / "in/a.imgl").write_bytes(toy_format.encode(rows[:3]))
    (tmp_path / "in/b.imgl").write_bytes(toy_format.encode(rows[3:]))
    return tmp_path


def config(folder) -> SourceConfig:
    return SourceConfig(urls=(str(folder / "in"),))


def test_a_format_from_outside_the_package_is_listed_counted_and_shown(toy):
    shards = list_shards(config(toy))
    assert [shard.path for shard in shards] == ["a.imgl", "b.imgl"]
    estimate = estimate_counts(shards, config(toy))
    assert (estimate.images, estimate.exact) == (5, True)
    job = {"source": f"{toy}/in", "output": "o", "model": "standin", "captions": {"slot": "a", "mode": "descriptive"}}
    out = io.StringIO()
    show_source(parse_job(job), 2, out)
    assert "found: 2 jsonl images\n" in out.getvalue()
    assert 'a.imgl begins with: one JSON object per image\n  0  k0  69 B  {"artist": "a0"}\n' in out.getvalue()
    (toy / "in/c.txt").write_text("no shard")
    with pytest.raises(ConfigError, match=r"allowed: .*\.parquet, \.imgl, or a folder or glob"):
        list_shards(SourceConfig(urls=(f"{toy}/in/c.txt",)))


def test_a_format_from_outside_the_package_is_planned(toy):
    (toy / "job.yaml").write_text(
        f"source: {toy}/in\noutput: {toy}/out\nmodel: standin\ncaptions: {{slot: s, mode: descriptive}}\n"
    )
    done = CliRunner().invoke(cli, ["plan", str(toy / "job.yaml"), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["source"]["images"] == 5


def test_the_head_of_a_format_without_ranges_is_the_whole_shard(toy):
    [shard, _] = list_shards(config(toy))
    with open_head(shard, config(toy), MAX_BYTES, 1) as head:
        assert head.num_images == 3
        assert [row.data for row in head.rows({1})] == [image(1)]


def test_a_format_from_outside_the_package_is_captioned_verified_and_exported(toy):
    captioned = caption_all(toy / "in", toy / "out")
    for shard in captioned.plan.shards.values():
        with open_shard(shard, captioned.source, MAX_BYTES) as reader:
            rows = list(reader.rows(None))
        hashes = [None if row.data is None else hashlib.sha256(row.data).hexdigest() for row in rows]
        images = [SourceImage(row.key, sha256) for row, sha256 in zip(rows, hashes, strict=True)]
        assert verify_shard(captioned.store, RUN, shard, len(rows), images).violations == ()
    export(captioned, toy / "csv", "csv", slots=("long",))
    [first] = [
        row for row in csv.DictReader(io.StringIO((toy / "csv/data/a.imgl.csv").read_text())) if row["key"] == "k2"
    ]
    assert json.loads(first["source"]) == {"artist": "a2"}
    with pytest.raises(ConfigError, match=r"2 of 2 shards have none, such as a\.imgl"):
        export(captioned, toy / "joined", "csv", slots=("long",), join=True)
    export(captioned, toy / "sidecars", "sidecars", slots=("long",))
    assert (toy / "sidecars/a.imgl-000002-k2.png").read_bytes() == image(2)


def test_an_image_that_a_format_cannot_read_is_a_row_with_a_reason(toy):
    (toy / "in/b.imgl").write_bytes(toy_format.encode([("k3", None, {}), ("k4", image(4), {})]))
    [_, shard] = list_shards(config(toy))
    with open_shard(shard, config(toy), 10) as reader:
        assert [row.reason for row in reader.rows(None)] == [Reason.MISSING_IMAGE, Reason.TOO_MANY_BYTES]


def test_a_shard_that_its_format_cannot_open_is_named(toy):
    (toy / "in/b.imgl").write_bytes(b"{")
    [_, shard] = list_shards(config(toy))
    with pytest.raises(ShardUnreadable, match=r"b\.imgl: not JSON Lines"), open_shard(shard, config(toy), MAX_BYTES):
        pass
    assert set(estimate_counts([shard], config(toy)).unreadable) == {"b.imgl"}
