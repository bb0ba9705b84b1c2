import hashlib
import io
import json
import tarfile
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.standin.demo_data import PARQUET_SCHEMA, draw_dataset
from pipeline.standin.world import Special


def read_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # pyright: ignore[reportOptionalMemberAccess] all are files


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }


def test_the_folder_holds_half_tar_and_half_parquet(tmp_path: Path):
    truth = draw_dataset(tmp_path, num_images=21, seed=1, shard_rows=4)
    assert list(digests(tmp_path)) == [
        *("parquet/00000.parquet", "parquet/00001.parquet", "parquet/00002.parquet"),
        *("tar/00000.tar", "tar/00001.tar", "tar/00002.tar"),
    ]
    assert list(truth) == [f"{i:06d}" for i in range(21)]


def test_every_row_carries_its_truth(tmp_path: Path):
    truth = draw_dataset(tmp_path, num_images=12, seed=2, shard_rows=100)
    tar = read_tar(tmp_path / "tar/00000.tar")
    result = {name[:6]: json.loads(data) for name, data in tar.items() if name.endswith(".json")}
    table = pq.read_table(tmp_path / "parquet/00000.parquet")
    assert table.schema.equals(PARQUET_SCHEMA)
    result |= {row["key"]: json.loads(row["scene"]) for row in table.to_pylist()}
    assert result == {key: asdict(scene) for key, scene in truth.items()}
    assert f"{truth['000000'].color}, " in tar["000000.txt"].decode()


def test_pictures_are_files_of_mixed_formats_and_ordinary_sizes(tmp_path: Path):
    draw_dataset(tmp_path, num_images=12, seed=3, shard_rows=100)
    tar = read_tar(tmp_path / "tar/00000.tar")
    files = {name: data for name, data in tar.items() if not name.endswith((".json", ".txt"))}
    table = pq.read_table(tmp_path / "parquet/00000.parquet")
    files |= {row["path"]: row["bytes"] for row in table["image"].to_pylist()}
    formats = set()
    for data in files.values():
        with Image.open(io.BytesIO(data)) as image:
            formats.add(image.format)
            assert 160 <= min(image.size) <= max(image.size) <= 512
    assert len(files) == 12
    assert formats == {"JPEG", "PNG", "WEBP"}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        draw_dataset(tmp_path / name, num_images=9, seed=4, shard_rows=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_larger_data_set_begins_with_the_smaller_one(tmp_path: Path):
    small = draw_dataset(tmp_path / "a", num_images=4, seed=5, shard_rows=3)
    large = draw_dataset(tmp_path / "b", num_images=8, seed=5, shard_rows=2)
    assert list(large.items())[:4] == list(small.items())


def test_specials_are_drawn_only_if_requested(tmp_path: Path):
    plain = draw_dataset(tmp_path, num_images=30, seed=6, shard_rows=30)
    mixed = draw_dataset(tmp_path, num_images=30, seed=6, shard_rows=30, special_share=0.5)
    assert {scene.special for scene in plain.values()} == {Special.NONE}
    assert len({scene.special for scene in mixed.values()}) > 2


def test_a_shard_without_rows_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="shard_rows=0, not at least 1"):
        draw_dataset(tmp_path, num_images=1, seed=1, shard_rows=0)
