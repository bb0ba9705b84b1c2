"""Each form is read by the library that it is made for, and holds each image with its own captions."""

import csv
import io
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.export.world import (
    caption_all,
    caption_of,
    export,
    files_of,
    image,
    write_images,
    write_parquets,
    write_tars,
)


@pytest.fixture
def tars(tmp_path):
    write_tars(tmp_path / "in", 2, 5)
    return caption_all(tmp_path / "in", tmp_path / "out")


@pytest.fixture
def parquets(tmp_path):
    write_parquets(tmp_path / "in", 2, 5)
    return caption_all(tmp_path / "in", tmp_path / "out")


def shade(data: bytes) -> int:
    return Image.open(io.BytesIO(data)).getpixel((0, 0))[0]


@pytest.mark.slow
def test_a_data_set_folder_is_loaded_by_datasets_with_its_features(tmp_path, parquets, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    write_parquets(tmp_path / "two" / "in", 2, 5)
    write_parquets(tmp_path / "two" / "in", 1, 3, split="test")
    captioned = caption_all(tmp_path / "two" / "in", tmp_path / "two" / "out")

    exported = export(captioned, tmp_path / "hub", "hf", slots=("long",), column="joy-caption", fields=("mode",))
    result = datasets.load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))

    assert exported.num_exported == 13
    assert {split: rows.num_rows for split, rows in result.items()} == {"train": 10, "test": 3}
    train = result["train"]
    assert train.column_names == ["image", "label", "im_name", "joy-caption", "mode"]
    assert train.features["image"] == datasets.Image()
    assert train.features["label"].names == ["cat", "dog"]
    for number, row in enumerate(train):
        assert row["image"].getpixel((0, 0))[0] == number
        assert (row["im_name"], row["label"]) == (f"{number}.png", number % 2)
        assert row["joy-caption"] == caption_of(f"{number}.png", "long")


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    write_images(tmp_path / "in", 7)
    captioned = caption_all(tmp_path / "in", tmp_path / "out", images_per_shard=3)

    export(captioned, tmp_path / "hub", "hf", template="{tags}. {long}")
    rows = datasets.load_dataset(str(tmp_path / "hub"), split="train", cache_dir=str(tmp_path / "cache"))

    # Row 4 of a shard would be rejected, and shards have three rows.
    assert sorted(rows["key"]) == sorted(f"{'ab'[number % 2]}/{number:03d}" for number in range(7))
    for row in rows:
        assert row["image"].getpixel((0, 0))[0] == int(row["key"][2:])
        assert row["caption"] == f"{caption_of(row['key'], 'tags')}. {caption_of(row['key'], 'long')}"


@pytest.mark.slow
def test_webdataset_gives_each_sample_with_its_captions(tmp_path, tars):
    from webdataset.tariterators import group_by_keys, tar_file_expander

    export(tars, tmp_path / "wds", "webdataset")

    samples = []
    for path in sorted((tmp_path / "wds").glob("*.tar")):
        with path.open("rb") as stream:  # given open, since the library leaves closing to the collector
            samples += group_by_keys(tar_file_expander([{"stream": stream, "url": str(path)}]))
    assert [sample["__key__"] for sample in samples] == [f"{s:02d}{r:03d}" for s in range(2) for r in range(5)]
    for number, sample in enumerate(samples):
        assert sample["png"] == image(number)
        assert (sample["mask.png"], json.loads(sample["json"])) == (b"mask", {"n": number % 5})
        assert sample["long.txt"].decode() == caption_of(sample["__key__"], "long")
        assert ("tags.txt" in sample) == (number % 5 != 4)
        facts = json.loads(sample["joyfleet.json"])
        assert facts["captions"]["long"]["prompt"] == "Write long."
        assert facts["row"] == number % 5


def test_samples_of_one_key_and_keys_with_dots_stay_apart_in_webdataset(tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/0.tar", "w") as tar:
        for number, name in enumerate(("a.png", "a.png", "img.v1.2.png", "img.v1.3.png")):
            info = tarfile.TarInfo(name)
            info.size = len(image(number))
            tar.addfile(info, io.BytesIO(image(number)))
    captioned = caption_all(tmp_path / "in", tmp_path / "out")

    export(captioned, tmp_path / "wds", "webdataset", slots=("long",))

    with tarfile.open(tmp_path / "wds/0.tar") as tar:
        names = [member.name for member in tar]
    assert [name for name in names if name.endswith(".png")] == [
        "a-r0.png",
        "a-r1.png",
        "img_v1_2.png",
        "img_v1_3.png",
    ]
    assert len(names) == 12


def test_a_sample_that_has_the_caption_s_file_already_is_refused(tmp_path):
    from pipeline.errors import PipelineError
    from tests.readers.shards import tar_of

    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.tar").write_bytes(tar_of([("a.png", image(0)), ("a.long.txt", b"old")]))
    captioned = caption_all(tmp_path / "in", tmp_path / "out")

    with pytest.raises(PipelineError, match=r"shard 0\.tar row 0: sample a has a long\.txt already"):
        export(captioned, tmp_path / "wds", "webdataset")


def test_parquet_rows_of_a_webdataset_become_samples(tmp_path, parquets):
    export(parquets, tmp_path / "wds", "webdataset", slots=("long",))

    with tarfile.open(tmp_path / "wds/data/train-00001-of-00002.parquet.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    assert shade(files["5_png.png"]) == 5
    assert json.loads(files["5_png.json"]) == {"im_name": "5.png", "label": 1}
    assert files["5_png.long.txt"].decode() == caption_of("5.png", "long")


def test_csv_and_json_lines_hold_the_same_rows(tmp_path, tars):
    pandas = pytest.importorskip("pandas")
    export(tars, tmp_path / "csv", "csv", fields=("mode", "status", "width"), statuses=("ok", "rejected"))
    export(tars, tmp_path / "jsonl", "jsonl", fields=("mode", "status", "width"), statuses=("ok", "rejected"))

    table = pandas.concat(
        pandas.read_csv(file, dtype={"key": str}) for file in sorted((tmp_path / "csv").rglob("*.csv"))
    )
    lines = [line for file in sorted((tmp_path / "jsonl").rglob("*.jsonl")) for line in file.read_text().split("\n")]
    rows = [json.loads(line) for line in lines if line]

    assert len(table) == len(rows) == 10
    assert list(table.columns) == list(rows[0])
    for (_, item), row in zip(table.iterrows(), rows, strict=True):
        assert item["key"] == row["key"]
        assert item["caption_long"] == row["caption_long"] == caption_of(row["key"], "long")
        assert row["source"]["n"] == int(row["key"][2:])
        assert json.loads(item["source"]) == row["source"]
        rejected = int(row["key"][2:]) % 5 == 4
        assert row["status_tags"] == ("rejected" if rejected else "ok")
        assert (row["caption_tags"] is None) == rejected == pandas.isna(item["caption_tags"])


def test_a_table_of_a_parquet_source_keeps_its_columns_and_types(tmp_path, parquets):
    export(parquets, tmp_path / "with", "parquet", slots=("long",), images=True)
    export(parquets, tmp_path / "without", "parquet", slots=("long",))
    export(parquets, tmp_path / "alone", "parquet", slots=("long",), join=False)

    name = "data/data/train-00000-of-00002.parquet.parquet"
    source = pq.read_table(tmp_path / "in/data/train-00000-of-00002.parquet")
    assert pq.read_table(tmp_path / "with" / name).drop_columns(["caption"]).equals(source)
    assert pq.read_table(tmp_path / "without" / name).column_names == ["label", "im_name", "caption"]
    assert pq.read_table(tmp_path / "alone" / name).column_names == ["key", "source", "caption"]


def test_sidecars_are_pairs_of_image_and_text(tmp_path, tars):
    export(tars, tmp_path / "lora", "sidecars", slots=("tags",), suffix="caption")

    files = files_of(tmp_path / "lora")
    assert len(files) == 16
    for name in (name for name in files if name.endswith(".png")):
        key = name.removesuffix(".png").rpartition("-")[2]
        assert shade(files[name]) == int(key[:2]) * 5 + int(key[2:])
        assert files[f"{name[:-4]}.caption"].decode() == f'tags of {key}, "é"'


def test_texts_beside_images_leave_the_images_and_the_source_s_plan_alone(tmp_path):
    write_images(tmp_path / "in", 6)
    captioned = caption_all(tmp_path / "in", tmp_path / "out", images_per_shard=4)
    before = files_of(tmp_path / "in")

    export(captioned, tmp_path / "in", "beside", slots=("long",))
    export(captioned, tmp_path / "in", "beside", slots=("long",))

    after = files_of(tmp_path / "in")
    assert {name: after[name] for name in before} == before
    assert {name: data.decode() for name, data in after.items() if name not in before} == {
        f"{name[:-4]}.txt": f'long of {name[:-4]}, "é"' for name in before
    }
    assert caption_all(tmp_path / "in", tmp_path / "out", only=0, images_per_shard=4).plan == captioned.plan


def test_a_text_of_another_hand_is_not_overwritten(tmp_path):
    from pipeline.errors import OutputMismatch

    write_images(tmp_path / "in", 2)
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in/a/000.txt").write_text("mine")

    with pytest.raises(OutputMismatch, match=r"a/000\.txt: exists with other content; nothing was replaced"):
        export(captioned, tmp_path / "in", "beside", slots=("long",))
    assert (tmp_path / "in/a/000.txt").read_text() == "mine"


def test_fine_tuning_examples_have_the_prompts_of_the_run(tmp_path, tars):
    export(tars, tmp_path / "tune", "joycaption")

    examples = json.loads((tmp_path / "tune/train.json").read_text())
    assert len(examples) == 18
    for item in examples:
        user, assistant = item["messages"]
        [path] = item["images"]
        key = path.rpartition("-")[2].removesuffix(".png")
        slot = user["content"].removeprefix("Write ").removesuffix(".")
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert assistant["content"] == caption_of(key, slot)
        assert shade((tmp_path / "tune" / path).read_bytes()) == int(key[:2]) * 5 + int(key[2:])


def test_a_csv_cell_may_hold_lines_and_quotes(tmp_path, tars):
    export(tars, tmp_path / "csv", "csv", slots=("long",))

    with (tmp_path / "csv/data/00000.tar.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["caption"] == 'long of\n00000, "é"'
