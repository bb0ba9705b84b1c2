"""An image that is slow to decode ends a reader once, and is then a failed row of its shard."""

import multiprocessing

import pytest

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.models import FixedSize
from pipeline.readers import list_shards
from pipeline.stages.read_batches import ReadSpec, ReadTimings, read_shard
from tests.odd_images import encode, picture
from tests.readers.shards import tar_of
from tests.slow_images import slow_jpeg

GOOD = encode(picture(), "PNG")


@pytest.fixture
def slow_shard(tmp_path):
    files = [("0.png", GOOD), ("1.jpg", slow_jpeg(3000)), ("2.png", GOOD), ("3.jpg", slow_jpeg(3000))]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/slow.tar").write_bytes(tar_of(files))
    source = SourceConfig(urls=(str(tmp_path / "in"),))
    [shard] = list_shards(source)
    return ReadSpec(source=source, images=ImagesConfig(timeout_s=0.5), geometry=FixedSize(8, 8), batch_images=16), shard


def test_each_slow_image_is_a_failed_row_of_a_shard_that_is_decoded_in_isolation(slow_shard):
    timeouts = []
    [batch] = read_shard(*slow_shard, (), isolated=True, timings=ReadTimings(on_timeout=lambda: timeouts.append(1)))
    rows = batch["images"][0].as_py()
    assert [row["reason"] for row in rows] == [None, "decode_timeout", None, "decode_timeout"]
    assert rows[1]["message"] == f"JPEG of {rows[1]['image_bytes']} bytes: not decoded within images.timeout_s=0.5 s"
    assert len(timeouts) == 2


def test_a_slow_image_ends_its_reader_at_the_limit(slow_shard):
    process = multiprocessing.get_context("spawn").Process(target=_read, args=slow_shard)
    process.start()
    process.join(120)
    assert process.exitcode == 1


def _read(spec, shard):
    list(read_shard(spec, shard, ()))
