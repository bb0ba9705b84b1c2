"""What others pack: img2dataset's three outputs, Hugging Face splits and configs, tars with an index beside them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.readers import list_source
from pipeline.readers.img2dataset import downloads
from pipeline.readers.splits import split_of
from tests.readers.shards import read, shard_of, tar_of
from tests.readers.test_folder import fill

STATS = {"count": 10, "successes": 7, "failed_to_download": 2, "failed_to_resize": 1}


def stats(root, stem, **reasons):
    (root / f"{stem}_stats.json").write_text(json.dumps(STATS | {"status_dict": {"success": 7, **reasons}}))


def paths(root, **source):
    return [shard.path for shard in list_source(SourceConfig(urls=(str(root),), **source)).shards]


def test_img2dataset_tars_have_their_records_left_out(tmp_path):
    fill(tmp_path, "00000.tar", "00000.parquet", "00001.tar", "00001.parquet", "other.parquet")
    stats(tmp_path, "00000")
    stats(tmp_path, "00001")

    result = list_source(SourceConfig(urls=(str(tmp_path),)))

    assert [shard.path for shard in result.shards] == ["00000.tar", "00001.tar", "other.parquet"]
    assert result.remarks == (f"{tmp_path}: 2 Parquet files are img2dataset's records, not read",)


def test_img2dataset_files_are_a_folder_of_images(tmp_path):
    fill(tmp_path, "00000/000000000.jpg", "00000/000000000.json", "00000.parquet", "00001/000010000.jpg")
    stats(tmp_path, "00000")

    assert paths(tmp_path) == ["images-00000"]


def test_a_failed_download_of_img2dataset_is_a_failed_row_with_the_reason(tmp_path):
    table = {"key": ["0", "1"], "status": ["success", "failed_to_download"], "error_message": [None, "HTTP Error 404"]}
    file = tmp_path / "00000.parquet"
    pq.write_table(pa.table(table | {"jpg": pa.array([b"x", None], pa.binary())}), file)

    rows = read(shard_of(file))

    assert rows[0].data == b"x"
    assert rows[1].message == "column jpg is null; status: failed_to_download; error_message: HTTP Error 404"


def test_failed_downloads_are_added_up(tmp_path):
    stats(tmp_path, "00000", **{"HTTP Error 404": 2, "timed out": 1})
    stats(tmp_path, "00001", **{"HTTP Error 404": 3})
    (tmp_path / "00002_stats.json").write_text("[]")

    result = downloads([str(path) for path in tmp_path.iterdir()], str(tmp_path))

    assert (result.files, result.unreadable, result.requested, result.downloaded) == (2, 1, 20, 14)
    assert result.reasons == (("HTTP Error 404", 5), ("timed out", 1))


def test_an_index_beside_a_tar_is_no_shard_and_not_believed(tmp_path):
    (tmp_path / "0000.tar").write_bytes(tar_of([("1.webp", b"x"), ("2.webp", b"y")]))
    (tmp_path / "0000.json").write_text(json.dumps({"files": {"1.webp": {"offset": 999, "size": 1}}}))

    assert paths(tmp_path) == ["0000.tar"]
    assert [row.data for row in read(shard_of(tmp_path / "0000.tar"))] == [b"x", b"y"]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00004.parquet", "train"),
        ("data/pets-00000-of-00004.parquet", "pets"),
        ("en/test/0000.parquet", "test"),
        ("en/train-v2/0001.tar", "train"),
        ("dev.parquet", "validation"),
        ("my_eval_0.parquet", "test"),
        ("data/trainer.parquet", None),
        ("constraint/0.tar", None),
        ("0000.parquet", None),
    ],
)
def test_a_split_is_read_off_the_path(path, split):
    assert split_of(path) == split


def test_one_split_is_read(tmp_path):
    fill(tmp_path, "en/train-00000-of-00001.parquet", "en/test-00000-of-00001.parquet", "de/train/1.tar")

    assert paths(tmp_path, split="train") == ["de/train/1.tar", "en/train-00000-of-00001.parquet"]
    assert paths(tmp_path / "en", split="test") == ["test-00000-of-00001.parquet"]
    with pytest.raises(ConfigError, match=r"no shard of split 'dev'; found: test, train; correct source\.split"):
        paths(tmp_path, split="dev")


def test_a_split_of_loose_images_is_that_of_their_folder(tmp_path):
    fill(tmp_path, "train/test-kitchen.jpg", "train/1.jpg", "test/1.jpg")

    result = list_source(SourceConfig(urls=(str(tmp_path),), split="train"))

    [shard] = result.shards
    assert [row.key for row in read(shard, split="train")] == ["train/1", "train/test-kitchen"]
