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
    found = estimate(tmp_path)
    assert (found.images, found.exact, found.error, found.sampled) == (23, True, 0.0, 3)


@pytest.mark.parametrize("pack", [lambda data: data, lambda data: gzip.compress(data, 0)])
def test_a_long_tar_is_extrapolated_from_its_head(tmp_path, pack):
    sizes = np.random.default_rng(0).integers(20_000, 180_000, 400)
    data = pack(tar_of(sizes))
    assert len(data) > 5 * COUNT_BYTES
    (tmp_path / ("a.tar" if data[:2] != b"\x1f\x8b" else "a.tgz")).write_bytes(data)
    found = estimate(tmp_path)
    assert not found.exact
    assert found.images == pytest.approx(400, rel=0.15)


def test_many_shards_are_sampled_and_the_standard_error_is_returned(tmp_path):
    rng, images = np.random.default_rng(1), 0
    for index in range(3 * MAX_SHARDS):
        sizes = rng.integers(100, 9000, rng.integers(5, 15))
        (tmp_path / f"{index:03d}.tar").write_bytes(tar_of(sizes))
        images += len(sizes)
    found = estimate(tmp_path)
    assert found.sampled == MAX_SHARDS
    assert 0 < found.error < 0.1
    assert found.images == pytest.approx(images, rel=4 * found.error)


def test_unreadable_shards_are_named_and_not_counted(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of([100] * 6))
    (tmp_path / "b.tar").write_bytes(b"no tar at all" * 1000)
    pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / "c.parquet")
    found = estimate(tmp_path)
    assert set(found.unreadable) == {"b.tar", "c.parquet"}
    assert "no tar header" in found.unreadable["b.tar"]
    assert "set source.image_column" in found.unreadable["c.parquet"]
    assert not found.exact


def test_an_empty_source_has_no_images(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\0" * 10240)
    assert estimate(tmp_path).images == 0
