"""The sample of a source: the same images every time, spread over shards, no more read than said."""

import io
import tarfile
from dataclasses import replace

import fsspec
import pytest

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.models import FixedSize
from pipeline.readers import list_shards, open_head, open_shard
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.source_sample import HEAD_ROWS, SHARDS, draw_sample
from schemas.status import Reason


def tar_of(rows, size=2000):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for number in range(rows):
            for extension, data in (("png", bytes([number % 256]) * size), ("txt", b"tag")):
                info = tarfile.TarInfo(f"{number:05d}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def spec_of(url):
    source = SourceConfig(urls=(url,))
    return ReadSpec(source=source, images=ImagesConfig(), geometry=FixedSize(8, 8), batch_images=4)


def drawn(url, num_images, seed=0):
    spec = spec_of(url)
    sample = draw_sample(spec, list_shards(spec.source), seed, num_images)
    return [(item.shard.path, row.row) for item in sample.shards for row in item.rows], sample


def test_the_same_images_every_time_others_with_another_seed(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(tar_of(30))
    first, _ = drawn(str(tmp_path), 12)
    assert drawn(str(tmp_path), 12)[0] == first
    assert drawn(str(tmp_path), 12, seed=1)[0] != first
    assert len(set(first)) == 12
    assert {shard for shard, _ in first} == {"0.tar", "1.tar", "2.tar"}


def test_more_shards_than_are_opened_at_once_cost_nothing(tmp_path):
    for number in range(3 * SHARDS):
        (tmp_path / f"{number:02d}.tar").write_bytes(tar_of(4))
    result, _ = drawn(str(tmp_path), 2 * SHARDS)
    assert len(result) == 2 * SHARDS
    assert len({shard for shard, _ in result}) == SHARDS


def test_small_shards_are_complemented_by_further_shards(tmp_path):
    for number in range(2 * SHARDS):
        (tmp_path / f"{number:02d}.tar").write_bytes(tar_of(2))
    assert len(drawn(str(tmp_path), 3 * SHARDS)[0]) == 3 * SHARDS


def test_a_shard_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 100)
    (tmp_path / "b.tar").write_bytes(tar_of(5))
    result, sample = drawn(str(tmp_path), 4)
    assert {shard for shard, _ in result} == {"b.tar"}
    assert len(sample.unreadable) == 1
    assert "a.tar" in sample.unreadable[0]


class Counted:
    """The bytes that a store gave."""

    def __init__(self, monkeypatch):
        from fsspec.implementations.memory import MemoryFile

        self.bytes = 0
        read = MemoryFile.read

        def counted(file, size=-1):
            data = read(file, size)
            self.bytes += len(data)
            return data

        monkeypatch.setattr(MemoryFile, "read", counted)


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.store.clear()


def test_the_head_of_a_shard_in_a_store_is_a_fraction_of_it(memory, monkeypatch):
    data = tar_of(2 * HEAD_ROWS)
    memory.pipe_file("/in/a.tar", data)
    [shard] = list_shards(SourceConfig(urls=("memory://in",)))
    counted = Counted(monkeypatch)
    with open_head(shard, SourceConfig(urls=("memory://in",)), 1 << 20, 10) as opened:
        assert opened.num_images == 10
        rows = {row.row: row.data for row in opened.rows({3, 9})}
    assert rows == {3: bytes([3]) * 2000, 9: bytes([9]) * 2000}
    assert counted.bytes < len(data) / 40


def test_the_head_of_a_small_shard_is_all_of_it(memory):
    memory.pipe_file("/in/a.tar", tar_of(3))
    source = SourceConfig(urls=("memory://in",))
    [shard] = list_shards(source)
    with open_head(shard, source, 1 << 20, 10) as head, open_shard(shard, source, 1 << 20) as whole:
        assert head.num_images == whole.num_images == 3
        assert [(row.key, row.data) for row in head.rows(None)] == [(row.key, row.data) for row in whole.rows(None)]


def test_the_head_of_a_damaged_shard_ends_before_the_damage(memory):
    data = bytearray(tar_of(6))
    middle = 3 * (512 + 2048 + 1024)  # the header of the fourth sample
    data[middle:] = b"\xff" * (len(data) - middle)
    memory.pipe_file("/in/a.tar", bytes(data))
    source = SourceConfig(urls=("memory://in",))
    [shard] = list_shards(source)
    with open_head(shard, source, 1 << 20, 10) as head:
        assert head.num_images == 3
        assert [len(row.data) for row in head.rows(None)] == [2000] * 3


def test_an_image_that_is_too_large_is_reported_and_not_read(memory):
    memory.pipe_file("/in/a.tar", tar_of(2, size=5000))
    source = SourceConfig(urls=("memory://in",))
    [shard] = list_shards(source)
    with open_head(shard, source, 4999, 2) as head:
        assert [row.reason for row in head.rows(None)] == [Reason.TOO_MANY_BYTES] * 2


def test_a_shard_that_changed_since_it_was_listed_is_refused(memory):
    memory.pipe_file("/in/a.tar", tar_of(2))
    source = SourceConfig(urls=("memory://in",))
    [shard] = list_shards(source)
    memory.pipe_file("/in/a.tar", tar_of(3))
    with pytest.raises(ShardUnreadable, match=r"a\.tar: changed since the plan"), open_head(shard, source, 99, 2):
        pass


def test_a_shard_that_is_gone_is_named(memory):
    memory.pipe_file("/in/a.tar", tar_of(2))
    source = SourceConfig(urls=("memory://in",))
    [shard] = list_shards(source)
    memory.rm("/in/a.tar")
    with pytest.raises(ShardUnreadable, match=r"a\.tar: cannot be read"), open_head(shard, source, 99, 2):
        pass


def test_a_sample_of_a_store_has_the_fields_that_prompts_use():
    with fsspec.open("memory://fields/a.tar", "wb") as file:
        file.write(tar_of(20))
    spec = spec_of("memory://fields")
    for names, metadata in (((), {}), (("txt",), {"txt": "tag"})):
        reading = replace(spec, source=spec.source.with_optional_fields(names))
        sample = draw_sample(reading, list_shards(spec.source), 0, 3)
        assert [row.metadata for item in sample.shards for row in item.rows] == [metadata] * 3
