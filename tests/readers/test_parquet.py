import datetime
import decimal
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers import open_shard
from schemas.status import Reason
from tests.readers.shards import read, shard_of

IMAGES = [b"%d" % number * 50 for number in range(10)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def shard_with(tmp_path, columns, **options):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return shard_of(tmp_path / "a.parquet", buffer.getvalue())


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(50)])
@pytest.mark.parametrize("name", ["image", "jpg", "content", "anything"])
def test_a_column_of_bytes_gives_its_images(tmp_path, kind, name):
    rows = read(shard_with(tmp_path, {"width": list(range(10)), name: pa.array(IMAGES, kind)}))

    assert [row.data for row in rows] == IMAGES
    assert [row.key for row in rows] == [str(number) for number in range(10)]


def test_a_struct_of_bytes_and_path_gives_images_and_keys(tmp_path):
    cells = [{"bytes": data, "path": f"p/{number}.jpg"} for number, data in enumerate(IMAGES)]
    cells[3] = {"bytes": None, "path": "p/only.jpg"}
    cells[4] = {"bytes": None, "path": None}
    cells[5] = None

    rows = read(shard_with(tmp_path, {"image": pa.array(cells, STRUCT), "label": list(range(10))}))

    assert (rows[0].key, rows[0].data) == ("p/0.jpg", IMAGES[0])
    assert (rows[3].key, rows[3].data, rows[3].reason) == ("p/only.jpg", None, Reason.MISSING_IMAGE)
    assert rows[3].message == "column image is null, with only a path: p/only.jpg"
    assert [(row.key, row.reason, row.message) for row in rows[4:6]] == [
        ("4", Reason.MISSING_IMAGE, "column image is null"),
        ("5", Reason.MISSING_IMAGE, "column image is null"),
    ]
    assert rows[9].data == IMAGES[9]


def test_img2dataset_rows_without_an_image_are_missing(tmp_path):
    columns = {
        "key": ["000", "001", "002"],
        "jpg": pa.array([b"1", None, b""], pa.binary()),
        "txt": ["a cat", "a dog", None],
        "status": ["success", "failed_to_download", "success"],
    }

    rows = read(shard_with(tmp_path, columns), metadata_fields=("txt", "status"))

    assert [(row.key, row.data, row.reason) for row in rows] == [
        ("000", b"1", None),
        ("001", None, Reason.MISSING_IMAGE),
        ("002", b"", None),
    ]
    assert rows[1].metadata == {"txt": "a dog", "status": "failed_to_download"}


def test_a_column_of_nulls_alone_is_a_row_each(tmp_path):
    rows = read(shard_with(tmp_path, {"image": pa.array([None] * 40, pa.binary())}))

    assert [row.reason for row in rows] == [Reason.MISSING_IMAGE] * 40


@pytest.mark.parametrize("name", ["key", "__key__", "id", "image_id", "filename", "file_name"])
def test_the_key_column_is_found_by_name(tmp_path, name):
    columns = {"zz": ["x"] * 2, name: ["k1", None], "image": pa.array(IMAGES[:2])}

    assert [row.key for row in read(shard_with(tmp_path, columns))] == ["k1", "1"]


def test_key_and_image_columns_can_be_named(tmp_path):
    columns = {"id": [1, 2], "mine": [7, 8], "image": pa.array([b"a", b"b"]), "thumb": pa.array([b"c", b"d"])}

    rows = read(shard_with(tmp_path, columns), image_column="thumb", key_column="mine")

    assert [(row.key, row.data) for row in rows] == [("7", b"c"), ("8", b"d")]
    assert [row.key for row in read(shard_with(tmp_path, columns))] == ["1", "2"]


def test_a_key_column_of_no_simple_type_is_passed_over(tmp_path):
    columns = {"id": [[1], [2]], "image": pa.array([b"a", b"b"])}

    assert [row.key for row in read(shard_with(tmp_path, columns))] == ["0", "1"]


def test_row_groups_without_wanted_rows_are_not_read(tmp_path, monkeypatch):
    shard = shard_with(tmp_path, {"image": pa.array(IMAGES)}, row_group_size=2)
    groups = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self, batch_size, row_groups, columns):
        groups.extend(row_groups)
        return iter_batches(self, batch_size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    rows = read(shard, wanted={3, 9, 8})

    assert [(row.row, row.data) for row in rows] == [(3, IMAGES[3]), (8, IMAGES[8]), (9, IMAGES[9])]
    assert groups == [1, 4]


@pytest.mark.parametrize("group", [1, 3, 7, 100])
def test_any_row_group_size_gives_the_same_rows(tmp_path, group):
    images = [b"%d" % number for number in range(70)]

    rows = read(shard_with(tmp_path, {"image": pa.array(images)}, row_group_size=group))

    assert [row.data for row in rows] == images


def test_a_file_of_no_rows_has_none(tmp_path):
    assert read(shard_with(tmp_path, {"image": pa.array([], pa.binary())})) == []


def corrupt_shard(tmp_path, group):
    """Four row groups of five rows, one of them damaged in its data."""
    rng = np.random.default_rng(1)
    images = [rng.bytes(400) for _ in range(20)]
    options = {"row_group_size": 5, "use_dictionary": False, "compression": "zstd", "write_page_checksum": True}
    shard = shard_with(tmp_path, {"image": pa.array(images), "key": [f"k{n}" for n in range(20)]}, **options)
    column = pq.ParquetFile(shard.url).metadata.row_group(group).column(0)
    data = bytearray(Path(shard.url).read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 8] = bytes(8)
    return shard_of(Path(shard.url), bytes(data)), images


@pytest.mark.parametrize("group", [0, 2, 3])
def test_a_corrupt_row_group_costs_its_own_rows(tmp_path, group):
    shard, images = corrupt_shard(tmp_path, group)

    rows = read(shard)

    lost = range(group * 5, group * 5 + 5)
    assert [row.data for row in rows] == [None if row in lost else images[row] for row in range(20)]
    assert {row.reason for row in rows if row.row in lost} == {Reason.SHARD_DAMAGED}
    message = rows[lost.start].message
    assert message.startswith(f"{shard.url}: row group {group} cannot be read from row {lost.start} on: ")
    assert rows[lost.start].key == str(lost.start)
    assert [row.row for row in read(shard, wanted={lost.start + 1})] == [lost.start + 1]


def test_an_image_beyond_max_bytes_is_a_row_with_the_reason(tmp_path):
    rows = read(shard_with(tmp_path, {"image": pa.array([b"x" * 101, b"x" * 100])}), max_bytes=100)

    assert (rows[0].data, rows[0].reason) == (None, Reason.TOO_MANY_BYTES)
    assert rows[0].message == "101 bytes, more than max_bytes=100"
    assert rows[1].data == b"x" * 100


def test_metadata_values_of_every_type_are_json(tmp_path):
    noon = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
    columns = {
        "image": pa.array([b"1"]),
        "thumb": pa.array([b"2"]),
        "f": [float("nan")],
        "time": pa.array([noon], pa.timestamp("us", "UTC")),
        "nanos": pa.array([1], pa.timestamp("ns")),
        "day": [noon.date()],
        "price": [decimal.Decimal("1.50")],
        "took": pa.array([1500], pa.duration("ms")),
        "nested": [{"x": [1.5, float("inf")], "b": b"skip"}],
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
        "ok": [True],
        "none": pa.array([None], pa.string()),
    }

    [row] = read(shard_with(tmp_path, columns), image_column="image", metadata_fields=("*",))

    assert row.metadata == {
        "f": None,
        "time": "2026-01-02T12:00:00+00:00",
        "nanos": "1970-01-01T00:00:00.000000001",
        "day": "2026-01-02",
        "price": "1.50",
        "took": 1.5,
        "nested": {"x": [1.5, None]},
        "map": [["k", 1]],
        "ok": True,
        "none": None,
    }
    assert json.dumps(row.metadata, allow_nan=False)


def test_only_the_columns_needed_are_read(tmp_path, monkeypatch):
    shard = shard_with(tmp_path, {"image": pa.array(IMAGES), "id": IMAGES, "big": IMAGES, "tags": ["x"] * 10})
    asked = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self, batch_size, row_groups, columns):
        asked.append(columns)
        return iter_batches(self, batch_size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    read(shard, image_column="image", metadata_fields=("tags",))

    assert asked == [["image", "tags"]]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"url": ["http://x"]}, {}, r"0 columns may hold images; found: url \(string\); .*img2dataset"),
        (
            {"a": [b"1"], "b": [b"2"]},
            {},
            r"2 columns may hold images; found: a \(binary\), b \(binary\); set source\.im",
        ),
        (
            {"image": ["x.jpg"]},
            {"image_column": "image"},
            r"image_column=image is not a column of bytes; .*image \(string",
        ),
        (
            {"image": [b"1"]},
            {"image_column": "jpg"},
            r"image_column=jpg is not a column of bytes; found: image \(binary",
        ),
        ({"image": [b"1"]}, {"key_column": "uid"}, r"no column 'uid'; found: image; correct the config"),
        ({"image": [b"1"]}, {"metadata_fields": ("tags", "*")}, r"no column 'tags'; found: image; correct the config"),
    ],
)
def test_a_shard_without_the_configured_columns_is_unreadable(tmp_path, columns, options, message):
    with pytest.raises(ShardUnreadable, match=r"a\.parquet: " + message):
        read(shard_with(tmp_path, columns), **options)


def test_a_field_that_only_prompts_use_may_be_no_column(tmp_path):
    shard = shard_with(tmp_path, {"image": [b"1"], "tags": [["a", "b"]], "n": [1]})
    source = SourceConfig(urls=(shard.url,), metadata_fields=("n",)).with_optional_fields(["tags", "alt", "n"])
    with open_shard(shard, source, 9) as opened:
        assert [row.metadata for row in opened.rows(None)] == [{"n": 1, "tags": ["a", "b"]}]
    required = SourceConfig(urls=(shard.url,), metadata_fields=("alt",)).with_optional_fields(["alt"])
    with pytest.raises(ShardUnreadable, match="no column 'alt'"), open_shard(shard, required, 9):
        pass


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -20])
def test_a_damaged_footer_makes_the_shard_unreadable(tmp_path, cut):
    data = Path(shard_with(tmp_path, {"image": pa.array(IMAGES)}).url).read_bytes()[:cut]

    with pytest.raises(
        ShardUnreadable, match=r"a\.parquet: (not a Parquet file that can be read \(.*\); restore|0 bytes)"
    ):
        read(shard_of(tmp_path / "a.parquet", data))


MEASURE = """
import sys
from pathlib import Path
from pipeline.config import SourceConfig
from pipeline.readers import open_shard
from schemas.shard import Shard
path = Path(sys.argv[1])
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
source = SourceConfig(urls=(sys.argv[1],))
with open_shard(Shard(path.name, str(path), path.stat().st_size, ""), source, 1 << 28) as opened:
    before = peak()
    print(sum(len(row.data) for row in opened.rows(None)), peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_row_group(tmp_path):
    rng = np.random.default_rng(2)
    images = [rng.bytes(100_000) for _ in range(1500)]
    options = {"row_group_size": 1500, "use_dictionary": False, "write_batch_size": 16}
    shard = shard_with(tmp_path, {"image": pa.array(images)}, **options)
    del images

    child = subprocess.run(
        [sys.executable, "-c", MEASURE, shard.url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )

    total, grown_mib = map(int, child.stdout.split())
    assert total == 150_000_000
    assert grown_mib < 60
