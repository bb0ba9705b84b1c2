"""The estimated number of images of a source: exact where all was read, near where a part was read."""

import gzip
import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import SourceConfig
from pipeline.readers import count_estimate, list_shards
from pipeline.readers.count_estimate import MAX_SHARDS
from pipeline.readers.tar import COUNT_BYTES


def tar_of(sizes, texts=True) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for index, size in enumerate(sizes):
            members = [("jpg", b"x" * size)] + ([("txt", b"a caption")] if texts else [])
            for extension, data in members:
                info = tarfile.TarInfo(f"{index:06d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def estimate(folder, **source):
    config = SourceConfig(urls=(str(folder),), **source)
    return count_estimate.estimate_counts(list_shards(config), config)


def test_small_shards_of_all_formats_are_counted(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of([100] * 7))
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(tar_of([100] * 5)))
    pq.write_table(pa.table({"jpg": [b"x"] * 11, "key": list("abcdefghijk")}), tmp_path / "c.parquet")
    result = estimate(tmp_path)
    assert (result.images, result.exact, result.error, result.sampled) == (23, True, 0.0, 3)


@pytest.mark.parametrize("pack", [lambda data: data, lambda data: gzip.compress(data, 0)])
def test_a_long_tar_is_extrapolated_from_its_head(tmp_path, pack):
    sizes = np.random.default_rng(0).integers(20_000, 180_000, 400)
    data = pack(tar_of(sizes))
    assert len(data) > 5 * COUNT_BYTES
    (tmp_path / ("a.tar" if data[:2] != b"\x1f\x8b" else "a.tgz")).write_bytes(data)
    result = estimate(tmp_path)
    assert not result.exact
    assert result.images == pytest.approx(400, rel=0.15)


def test_many_shards_are_sampled_and_the_standard_error_is_returned(tmp_path):
    rng, images = np.random.default_rng(1), 0
    for index in range(3 * MAX_SHARDS):
        sizes = rng.integers(100, 9000, rng.integers(5, 15))
        (tmp_path / f"{index:03d}.tar").write_bytes(tar_of(sizes))
        images += len(sizes)
    result = estimate(tmp_path)
    assert result.sampled == MAX_SHARDS
    assert 0 < result.error < 0.1
    assert result.images == pytest.approx(images, rel=4 * result.error)


def test_unreadable_shards_are_named_and_not_counted(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of([100] * 6))
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 1000)
    pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / "c.parquet")
    result = estimate(tmp_path)
    assert set(result.unreadable) == {"b.tar", "c.parquet"}
    assert "no tar header" in result.unreadable["b.tar"]
    assert "set source.image_column" in result.unreadable["c.parquet"]
    assert not result.exact


def test_an_empty_source_has_no_images(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\0" * 10240)
    assert estimate(tmp_path).images == 0
