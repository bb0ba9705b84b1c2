"""What becomes of a shard when its reader fails in a way that nobody foresaw, or its file changes under the reader."""

import os
import re

import pytest

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import EngineDead
from pipeline.models import FixedSize
from pipeline.readers.sample_reader import SampleShard
from pipeline.stages.read_batches import ReadSpec, read_shard
from schemas.batch import BatchKind
from tests.odd_images import encode, picture
from tests.readers.shards import shard_of, tar_of

IMAGE = encode(picture(), "PNG")
OTHER = IMAGE[:-1] + bytes([IMAGE[-1] ^ 1])


def spec_of(shard):
    return ReadSpec(
        source=SourceConfig(urls=(shard.url,)), images=ImagesConfig(), geometry=FixedSize(16, 16), batch_images=2
    )


@pytest.fixture
def shard(tmp_path):
    return shard_of(tmp_path / "a.tar", tar_of([(f"{number}.png", IMAGE) for number in range(6)]))


def breaks(monkeypatch, error, at_row):
    """Let a reader raise at a row, as a defect of it would."""
    row_of = SampleShard._row

    def row(self, number, sample, screen):
        if number == at_row:
            raise error
        return row_of(self, number, sample, screen)

    monkeypatch.setattr(SampleShard, "_row", row)


@pytest.mark.parametrize("at_row", [0, 3, 5])
def test_a_defect_puts_its_shard_into_quarantine_with_the_traceback(monkeypatch, shard, caplog, at_row):
    breaks(monkeypatch, IndexError("string index out of range \udce9"), at_row)

    *before, last = [batch.to_pylist()[0] for batch in read_shard(spec_of(shard), shard, [])]

    assert [batch["kind"] for batch in before] == [BatchKind.IMAGES] * (at_row // 2)
    assert last["kind"] == BatchKind.UNREADABLE
    assert last["message"].startswith(
        f"{shard.url}: a defect of JoyFleet ended its reading (IndexError: string index out of range \\udce9); "
        "please report it with the traceback in the shard's quarantine record"
    )
    assert re.search(r"Traceback.*test_read\.py.*IndexError", last["traceback"], re.DOTALL)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert last["traceback"] in record.getMessage()


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), EngineDead("ours")])
def test_what_is_not_the_shards_fault_passes(monkeypatch, shard, error):
    breaks(monkeypatch, error, 3)

    with pytest.raises(type(error)):
        list(read_shard(spec_of(shard), shard, []))


def test_the_last_batch_leaves_when_nothing_can_fail_any_more(monkeypatch, shard):
    def fail(self, *_):
        raise OSError("closing")

    monkeypatch.setattr("pipeline.images.isolated_decoder.IsolatedDecoder.__exit__", fail)

    kinds = [batch["kind"][0].as_py() for batch in read_shard(spec_of(shard), shard, [])]

    assert kinds == [BatchKind.IMAGES, BatchKind.IMAGES, BatchKind.UNREADABLE]


@pytest.mark.parametrize("after", [1, 2])
def test_no_batch_of_a_tar_that_is_overwritten_in_place_leaves_after_that(shard, after):
    batches = read_shard(spec_of(shard), shard, [])
    before = [next(batches).to_pylist()[0] for _ in range(after)]
    with open(shard.url, "r+b") as file:
        file.write(tar_of([(f"{number}.png", OTHER) for number in range(6)]))
    os.utime(shard.url, ns=(1, 1))

    [last] = [batch.to_pylist()[0] for batch in batches]

    assert len({image["image_sha256"] for batch in before for image in batch["images"]}) == 1
    assert last["kind"] == BatchKind.UNREADABLE
    assert "changed since the plan" in last["message"]
    assert last["traceback"] is None
