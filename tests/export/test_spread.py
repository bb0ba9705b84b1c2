"""Top-level fields of JSON captions as columns, with types that follow from the schema."""

import csv
import io
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, PipelineError
from tests.export import world
from tests.export.world import caption_all, export, write_tars

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "count": {"type": "integer"},
            "share": {"type": ["number", "null"]},
            "sure": {"type": "boolean"},
            "colours": {"type": "array", "items": {"enum": ["red", "blue"]}},
            "tags": {"type": "array", "items": {"type": "string"}},
            "kind": {"enum": ["a", "b"]},
            "box": {"type": "object", "properties": {"x": {"type": "integer"}}},
        },
    }
)
ANSWER = {"title": "é", "count": 3, "share": 0.5, "sure": True, "colours": ["red"], "tags": ["x"], "box": {"x": 1}}


@pytest.fixture
def captioned(tmp_path, monkeypatch):
    def caption_of(key, slot):
        number = int(key)
        return json.dumps({**ANSWER, "count": number} if number != 1 else {"count": 1.0, "share": None, "kind": "b"})

    monkeypatch.setattr(world, "caption_of", caption_of)
    write_tars(tmp_path / "in", 1, 6)
    return replace(caption_all(tmp_path / "in", tmp_path / "out"), schemas={"tags": SCHEMA})


def test_each_property_is_a_column_of_its_type(tmp_path, captioned):
    export(captioned, tmp_path / "x", "parquet", spread=("tags",))
    [file] = (tmp_path / "x").rglob("*.parquet")
    table = pq.read_table(file)
    assert {name: table.schema.field(f"tags_{name}").type for name in json.loads(SCHEMA)["properties"]} == {
        "title": pa.string(),
        "count": pa.int64(),
        "share": pa.float64(),
        "sure": pa.bool_(),
        "colours": pa.string(),
        "tags": pa.list_(pa.string()),
        "kind": pa.string(),
        "box": pa.string(),
    }
    assert table["tags_count"].to_pylist() == [0, 1, 2, 3, None, 5]  # the fourth is rejected
    assert table["tags_title"].to_pylist() == ["é", None, "é", "é", None, "é"]
    assert table["tags_kind"].to_pylist() == [None, "b", None, None, None, None]
    assert table["tags_box"][0].as_py() == '{"x": 1}'
    assert json.loads(table["caption_tags"][0].as_py())["title"] == "é"


@pytest.mark.parametrize("form", ["hf", "csv", "jsonl"])
def test_every_table_has_the_columns(tmp_path, captioned, form):
    export(captioned, tmp_path / form, form, spread=("tags",), **({"images": False} if form == "hf" else {}))
    [file] = [path for path in (tmp_path / form / "data").rglob("*") if path.is_file()]
    if form == "jsonl":
        first, second, *_ = map(json.loads, file.read_text().splitlines())
        assert (first["tags_box"], first["tags_tags"], second["tags_box"]) == ({"x": 1}, ["x"], None)
    elif form == "csv":
        first, second, *_ = csv.DictReader(io.StringIO(file.read_bytes().decode()))
        assert (first["tags_box"], first["tags_count"], second["tags_box"]) == ('{"x": 1}', "0", "")
    else:
        assert pq.read_table(file)["tags_sure"][0].as_py() is True


@pytest.mark.parametrize(
    ("options", "schemas", "message"),
    [
        (
            {"spread": ("long",)},
            {"tags": SCHEMA},
            "--spread long: has no schema, so its captions are text; .*one: tags",
        ),
        ({"spread": ("x",)}, {"tags": SCHEMA}, "--spread x: not an exported slot; found: long, tags"),
        (
            {"spread": ("tags",), "slots": ("long",)},
            {"tags": SCHEMA},
            "--spread tags: not an exported slot; found: long",
        ),
        ({"spread": ("tags",)}, {"tags": '{"type":"string"}'}, "its schema is no object with properties"),
    ],
)
def test_what_cannot_be_spread_is_refused(tmp_path, captioned, options, schemas, message):
    with pytest.raises(ConfigError, match=message):
        export(replace(captioned, schemas=schemas), tmp_path / "x", "parquet", **options)


def test_a_number_beyond_its_column_is_refused_with_its_name(tmp_path, captioned, monkeypatch):
    monkeypatch.setattr(world, "caption_of", lambda key, slot: json.dumps({"count": 10**30}))
    other = replace(caption_all(tmp_path / "in", tmp_path / "out2"), schemas={"tags": SCHEMA})
    with pytest.raises(PipelineError, match=r"column tags_count: a value does not fit int64 .*leave --spread out"):
        export(other, tmp_path / "x", "parquet", spread=("tags",))


def test_a_caption_that_is_no_object_is_refused_with_its_row(tmp_path, captioned, monkeypatch):
    monkeypatch.setattr(world, "caption_of", lambda key, slot: "a cat")
    other = replace(caption_all(tmp_path / "in", tmp_path / "out2"), schemas={"tags": SCHEMA})
    with pytest.raises(PipelineError, match=r"shard 00000\.tar row 0: the caption of slot tags is no JSON object"):
        export(other, tmp_path / "x", "parquet", spread=("tags",))
