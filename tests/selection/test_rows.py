"""What each row of a source becomes under every kind of selection: one caption row per slot, asked or skipped."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from pipeline.config import SourceConfig
from pipeline.images import IsolatedDecoder, decode
from pipeline.ledger.fragments import FragmentInfo
from pipeline.readers import list_shards, open_shard
from pipeline.readers.sample_reader import SampleShard
from pipeline.readers.tar import TarFiles
from pipeline.selection.selection import in_sample
from pipeline.stages import read_batches
from pipeline.stages.read_batches import ROWS_PER_IMAGE, read_shard
from tests.odd_images import encode
from tests.readers.shards import tar_of
from tests.selection.world import (
    NUM_ROWS,
    SLOTS,
    caption,
    fields_of,
    image,
    job_of,
    only_shard,
    spec_of,
    write_parquet,
    write_tar,
)


def write_folder(folder):
    folder.mkdir()
    for row in range(NUM_ROWS):
        (folder / f"{row:03d}.png").write_bytes(image(row))
        (folder / f"{row:03d}.json").write_text(json.dumps(fields_of(row)))


def write_zip(folder):
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        for row in range(NUM_ROWS):
            file.writestr(f"{row:03d}.png", image(row))
            file.writestr(f"{row:03d}.json", json.dumps(fields_of(row)))


WRITERS = {"tar": write_tar, "parquet": write_parquet, "folder": write_folder, "zip": write_zip}


@pytest.fixture(params=WRITERS)
def folder(request, tmp_path):
    WRITERS[request.param](tmp_path / "in")
    return tmp_path / "in"


def selected(rows):
    """Rows with status ok; the others must be skipped, with no text, no request and no seed."""
    for row in rows:
        if row["status"] != "ok":
            assert (row["status"], row["caption"], row["attempts"], row["seed"]) == ("skipped", None, 0, None)
            assert row["message"].startswith("source.")
    return sorted({row["row"] for row in rows if row["status"] == "ok"})


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"width": {"min": 25}}, range(5, 12)),
        ({"short_side": {"max": 22}}, range(3)),
        ({"long_side": {"min": 41}}, []),
        ({"aspect_ratio": {"max": 0.5}}, [0]),
        ({"format": ["JPEG"]}, []),
        ({"format": ["JPEG", "PNG"]}, range(12)),
        ({"fields": {"rating": {"equals": "safe"}}}, range(1, 12, 2)),
        ({"fields": {"score": {"min": 3}}}, range(5, 12)),
        ({"none_of": [{"fields": {"score": {"min": 3}}}]}, range(3)),
        ({"any_of": [{"fields": {"score": {"max": 1}}}, {"fields": {"score": {"present": False}}}]}, None),
        ({"width": {"min": 25}, "fields": {"rating": {"equals": "odd"}}}, [6, 8, 10]),
        ({"fields": {"nothing": {"present": False}}}, range(12)),
        ({"fields": {"nothing": {"equals": 1}}}, []),
    ],
)
def test_each_row_is_asked_or_skipped_once(folder, where, expected):
    job = job_of(folder, where=where)
    rows, engine = caption(job, only_shard(job))
    assert [(row["row"], row["slot"]) for row in rows] == [(row, s["slot"]) for row in range(12) for s in SLOTS]
    if expected is None:  # the text of row 4 is a score of another type in a tar, and none in Parquet
        expected = [0, 1, 3, 4] if any(folder.glob("*.parquet")) else [0, 1, 3]
    assert selected(rows) == list(expected)
    assert sorted({row for _, row, _ in engine.asked}) == list(expected)
    assert len(engine.asked) == len(list(expected)) * len(SLOTS)


def test_a_field_that_only_decides_is_not_stored(folder):
    job = job_of(folder, where={"fields": {"score": {"min": 3}}}, metadata_fields=["rating"])
    rows, _ = caption(job, only_shard(job))
    assert {row["source"] for row in rows} == {'{"rating": "odd"}', '{"rating": "safe"}'}
    assert {row["message"] for row in rows} >= {
        "source.where.fields.score: {min: 3}",
        "source.where.fields.score: {min: 3} (missing)",
    }


def test_a_row_that_is_skipped_by_its_header_has_its_size(tmp_path):
    write_tar(tmp_path / "in")
    job = job_of(tmp_path / "in", where={"width": {"min": 25}})
    rows, _ = caption(job, only_shard(job))
    assert [(row["width"], row["height"], row["image_format"]) for row in rows[:2]] == [(20, 40, "PNG")] * 2
    assert rows[0]["image_sha256"]
    assert rows[0]["message"] == "source.where.width: {min: 25}"


def test_damage_is_failed_and_not_skipped_by_a_condition_on_the_image(tmp_path):
    write_tar(tmp_path / "in", damaged=(2, 7))
    where = {"short_side": {"min": 1000}, "fields": {"rating": {"equals": "odd"}}}
    job = job_of(tmp_path / "in", where=where)
    rows, engine = caption(job, only_shard(job))
    status = {row["row"]: (row["status"], row["reason"]) for row in rows}
    assert status.pop(2) == ("failed", "unsupported_format")
    assert status.pop(7) == ("skipped", "filtered")  # by its rating: its image is not needed
    assert set(status.values()) == {("skipped", "filtered")}
    assert engine.asked == []


def test_no_pixels_of_a_skipped_row_are_decoded(monkeypatch, folder):
    decoded = []
    monkeypatch.setattr(
        read_batches, "decode_or_exit", lambda data, config, size: decoded.append(data) or decode(data, config, size)
    )
    job = job_of(folder, where={"width": {"min": 29}})
    caption(job, only_shard(job))
    assert decoded == [image(row) for row in range(9, 12)]


def test_a_member_that_a_field_skips_is_not_read(monkeypatch, tmp_path):
    write_tar(tmp_path / "in")
    read, members = TarFiles.read, []
    monkeypatch.setattr(TarFiles, "read", lambda self, member: members.append(member.name) or read(self, member))
    job = job_of(tmp_path / "in", where={"fields": {"score": {"min": 10}}, "bytes": {"min": 1}})
    caption(job, only_shard(job))
    assert [name for name in members if name.endswith(".png")] == ["010.png", "011.png"]


def test_the_image_column_of_a_row_group_without_a_selected_row_is_not_read(monkeypatch, tmp_path):
    write_parquet(tmp_path / "in")
    iter_batches, groups = pq.ParquetFile.iter_batches, []

    def spied(self, size, row_groups, columns):
        groups.append((row_groups, columns))
        return iter_batches(self, size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    job = job_of(tmp_path / "in", where={"fields": {"score": {"min": 10}}})
    rows, _ = caption(job, only_shard(job))
    assert selected(rows) == [10, 11]
    assert groups == [([2], ["image", "score"])]
    # Keys come from the path inside the image column, which is read without the bytes.
    assert [row["key"] for row in rows[::2]] == [f"{row:03d}.png" for row in range(12)]


def test_a_sample_without_columns_reads_no_row_group_that_has_none_of_it(monkeypatch, tmp_path):
    (tmp_path / "in").mkdir()
    table = pa.table({"image": pa.array([image(row) for row in range(12)], pa.binary())})
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=1)
    job = job_of(tmp_path / "in", sample=0.3)
    iter_batches, groups = pq.ParquetFile.iter_batches, []
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, size, row_groups, columns: groups.append(row_groups[0])
        or iter_batches(self, size, row_groups=row_groups, columns=columns),
    )  # fmt: skip
    rows, _ = caption(job, only_shard(job))
    chosen = [row for row in range(12) if in_sample(0.3, "a.parquet", row)]
    assert 0 < len(chosen) < 12
    assert selected(rows) == groups == chosen


@pytest.mark.parametrize("where", [{"width": {"min": 25}}, {"fields": {"score": {"min": 5}}}])
def test_a_resumed_shard_selects_the_same_rows_by_the_same_conditions(folder, where):
    job = job_of(folder, where=where, sample=0.7)
    shard, spec = only_shard(job), spec_of(job)
    whole = {
        image["row"]: (image["reason"], image["message"])
        for batch in read_shard(spec, shard, [])
        for image in batch["images"][0].as_py()
    }
    for staged in ([0, 1, 2], [5], list(range(0, 12, 2))):
        info = FragmentInfo("staging/x", NUM_ROWS, np.array(staged))
        rest = {
            image["row"]: (image["reason"], image["message"])
            for batch in read_shard(spec, shard, [info])
            for image in batch["images"][0].as_py()
        }
        assert rest == {row: why for row, why in whole.items() if row not in staged}


def test_a_reader_that_ignores_the_screen_gives_the_same_rows(monkeypatch, tmp_path):
    write_tar(tmp_path / "in")
    job = job_of(tmp_path / "in", where={"fields": {"score": {"min": 5}}}, sample=0.7)
    screened, _ = caption(job, only_shard(job))
    rows_of = SampleShard.rows
    monkeypatch.setattr(SampleShard, "rows", lambda self, wanted, screen=None: rows_of(self, wanted))
    ignored, _ = caption(job, only_shard(job))
    columns = ("row", "slot", "status", "reason", "message", "caption")
    assert [[row[name] for name in columns] for row in ignored] == [[row[name] for name in columns] for row in screened]


def test_skipped_rows_do_not_fill_a_batch(tmp_path):
    write_tar(tmp_path / "in", rows=200)
    job = job_of(tmp_path / "in", where={"fields": {"score": {"min": 190}}})
    shard = only_shard(job)
    sizes = [len(batch["images"][0]) for batch in read_shard(spec_of(job), shard, [])]
    most = 2 * ROWS_PER_IMAGE
    assert sizes[:5] == [most] * 5
    assert sum(sizes) == 200
    assert sizes[5:] == [most, 2, 2, 2, 2]  # 30 skipped rows with the first two images, then two images at a time


def test_the_lost_rest_of_a_tar_is_sampled_like_any_row(tmp_path):
    folder = tmp_path / "in"
    write_tar(folder)
    data = (folder / "a.tar").read_bytes()
    (folder / "a.tar").write_bytes(data[: len(data) * 3 // 4])
    for share in (0.05, 1.0):
        job = job_of(folder, sample=share)
        shard = only_shard(job)
        rows, _ = caption(job, shard)
        last = rows[-1]
        assert (last["status"] == "skipped") is not in_sample(share, "a.tar", last["row"])
        assert last["status"] in ("skipped", "failed")


def test_readers_give_fields_that_only_decide_beside_those_that_are_kept(folder):
    source = SourceConfig(urls=(str(folder),), metadata_fields=("rating",)).with_tested_fields(("score", "rating"))
    [shard] = list_shards(source)
    with open_shard(shard, source, 1 << 20) as opened:
        rows = list(opened.rows(None))
    assert rows[5].metadata == {"rating": "safe"}
    assert rows[5].tested == {"score": 5}
    everything = source.model_copy(update={"metadata_fields": ("*",)})
    with open_shard(shard, everything, 1 << 20) as opened:
        row = next(iter(opened.rows({5})))
    assert row.tested == {}
    assert row.metadata["score"] == 5


def test_a_format_is_told_by_the_content(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_of([("0.png", image(0)), ("1.png", encode_jpeg(1))]))
    job = job_of(folder, where={"format": "JPEG"})
    rows, _ = caption(job, only_shard(job))
    assert selected(rows) == [1]


def encode_jpeg(row):
    return encode(Image.new("RGB", (20, 20), (row, 0, 0)), "JPEG")


def test_the_header_of_a_deadly_image_is_read_apart(monkeypatch, tmp_path):
    """A repeated reader opens images in another process: for headers too."""
    write_tar(tmp_path / "in")
    job = job_of(tmp_path / "in", where={"width": {"min": 31}})
    monkeypatch.setattr(read_batches, "header_or_exit", None)
    headers = []
    header = IsolatedDecoder.header
    monkeypatch.setattr(
        IsolatedDecoder, "header", lambda self, data, config: headers.append(data) or header(self, data, config)
    )
    batches = list(read_shard(spec_of(job), only_shard(job), [], isolated=True))
    assert len(headers) == NUM_ROWS
    assert [image["reason"] for batch in batches for image in batch["images"][0].as_py()] == ["filtered"] * 11 + [None]


def test_loose_images_in_a_store_that_are_not_needed_are_not_fetched(monkeypatch):
    fs = MemoryFileSystem()
    for row in range(NUM_ROWS):
        fs.pipe(f"/selected/in/{row:03d}.png", image(row))
    cat, fetched = MemoryFileSystem.cat, []
    monkeypatch.setattr(MemoryFileSystem, "cat", lambda self, paths: fetched.extend(paths) or cat(self, paths))
    job = job_of("memory://selected/in", sample=0.4)
    shard = only_shard(job)
    rows, _ = caption(job, shard)
    chosen = [row for row in range(NUM_ROWS) if in_sample(0.4, shard.path, row)]
    assert 0 < len(chosen) < NUM_ROWS
    assert selected(rows) == chosen
    assert sorted(path.rpartition("/")[2] for path in fetched) == [f"{row:03d}.png" for row in chosen]
