"""Lists of tags with confidences in each usual shape, from tables of taggers, kept by a threshold for each kind."""

import json
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.tables.column_mapping import facts_of
from pipeline.corpus.tables.identity import join_key
from pipeline.corpus.tables.tag_scores import ScoreRules
from pipeline.errors import ConfigError, OutputMismatch
from schemas.image_facts import IMAGE_FACTS
from tests.corpus.test_job import TAGS, corpus, counted, lines, make, rows_of
from tests.corpus.test_joins import photos, records

RULES = ScoreRules(thresholds={"general": 0.35, "tags": 0.35, "character": 0.85, "rating": 0.0})
SCORES = {"1girl": 0.99, "hat": 0.35, "lake": 0.34}


@pytest.mark.parametrize(
    "value",
    [
        SCORES,
        json.dumps(SCORES),
        str(SCORES),
        list(SCORES.items()),
        [list(pair) for pair in SCORES.items()],
        json.dumps(list(SCORES.items())),
        [{"tag": tag, "confidence": number} for tag, number in SCORES.items()],
        [{"label": tag, "score": number, "index": 3} for tag, number in SCORES.items()],
        json.dumps([{"name": tag, "probability": number} for tag, number in SCORES.items()]),
        {**SCORES, "null of another row's struct": None},
        "1girl:0.99, (hat:0.35), (lake: .34)",
        {tag: str(number) for tag, number in SCORES.items()},
    ],
)
def test_every_shape_of_tags_with_confidences_is_read(value):
    faults: Counter[str] = Counter()
    assert facts_of({"general": value}, {}, faults, RULES) == {"general": ["1girl", "hat"]}
    assert faults == {"tag_below_confidence": 1}


@pytest.mark.parametrize("value", [SCORES, json.dumps(SCORES)])
def test_confidences_without_a_threshold_are_counted_and_not_read(value):
    faults: Counter[str] = Counter()
    assert facts_of({"general": value}, {}, faults) == {"general": []}
    assert faults == {"bad_tag_list": 1}


def test_the_threshold_is_that_of_the_kind():
    row = {"general": {"hat": 0.5}, "character": {"miku": 0.84, "rin": 0.85}, "tags": {"cat": 0.3, "dog": 0.4}}
    faults: Counter[str] = Counter()
    assert facts_of(row, {}, faults, RULES) == {"tags": ["dog"], "general": ["hat"], "character": ["rin"]}
    assert faults == {"tag_below_confidence": 2}


@pytest.mark.parametrize(
    ("tags", "confidences"),
    [
        (["1girl", "hat", "lake"], [0.99, 0.35, 0.34]),
        ("1girl, hat, lake", "0.99, 0.35, 0.34"),
        ('["1girl", "hat", "lake"]', "[0.99, 0.35, 0.34]"),
    ],
)
def test_two_lists_of_one_length_are_read_together(tags, confidences):
    rules = ScoreRules(thresholds=RULES.thresholds, columns={"general": "p"})
    faults: Counter[str] = Counter()
    facts = facts_of({"t": tags, "p": confidences}, {"general": "t"}, faults, rules)
    assert [tag.strip() for tag in facts["general"]] == ["1girl", "hat"]
    for bad in ([0.9, 0.8], None, "x"):
        assert facts_of({"t": tags, "p": bad}, {"general": "t"}, faults, rules) == {"general": []}
    assert faults == {"tag_below_confidence": 1, "bad_confidences": 3}


def test_what_is_no_confidence_or_no_tag_is_counted_and_left_out():
    value = [
        ["a b", 1.5],
        ["c d", -0.1],
        ["e f", "high"],
        ["g h", None],
        ["i j", True],
        [3.5, 0.9],
        [None, 0.9],
        ["k", 1],
    ]
    faults: Counter[str] = Counter()
    assert facts_of({"general": value}, {}, faults, RULES) == {"general": ["k"]}
    assert faults == {"bad_confidence": 5, "bad_tag": 2}
    assert facts_of({"general": {"x": float("nan")}}, {}, faults, RULES) == {"general": []}


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (["1girl", "hat"], ["1girl", "hat"]),
        ("1girl, re:zero", ["1girl", " re:zero"]),
        ("1girl, fate:0.9", ["1girl", " fate:0.9"]),
        ("[broken", []),
        (":3", [":3"]),
    ],
)
def test_tags_without_confidences_are_kept_as_without_a_threshold(value, tags):
    assert facts_of({"general": value}, {}, Counter(), RULES) == facts_of({"general": value}, {}, Counter())
    assert facts_of({"general": value}, {}, Counter(), RULES) == {"general": tags}


def odd_value(rng: random.Random, depth: int = 0) -> object:
    """Return a value as a careless program writes it: nested, mixed, or a text that is nearly JSON."""
    plain = ("1girl", "", "a:0.5", "0.9", 0.5, 1, -1, 10**400, 1e400, float("nan"), None, True, "{'a': 0.5", "[]", "{}")
    kind = rng.randrange(4) if depth < 3 else 0
    if kind == 0:
        return rng.choice(plain)
    items = [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 1:
        return items
    keys = ("tag", "score", "label", "1girl", "confidence", "hat")
    value = {rng.choice(keys): item for item in items}
    return value if kind == 2 else str(value)


def test_no_value_of_a_tagger_ends_a_job():
    rng = random.Random(0)
    rules = ScoreRules(thresholds=RULES.thresholds, columns={"character": "p"})
    fields = ("general", "character", "tags", "rating", "p")
    rows = [{field: odd_value(rng) for field in fields} for _ in range(5000)]
    faults: Counter[str] = Counter()
    facts = [facts_of(row, {"character": "character"}, faults, rules) for row in rows]
    pa.Table.from_pylist(facts, schema=IMAGE_FACTS)
    assert {"bad_confidence", "bad_tag", "bad_confidences", "bad_tag_list", "tag_below_confidence"} <= set(faults)


@pytest.mark.parametrize(
    ("value", "rating"),
    [
        ({"general": 0.2, "sensitive": 0.7, "explicit": 0.1}, "sensitive"),
        ('{"general": 0.9, "sensitive": 0.05}', "general"),
        ("e", "e"),
        ("explicit, nsfw", "explicit, nsfw"),
        ({}, None),
    ],
)
def test_the_rating_of_a_tagger_is_the_most_confident_one(value, rating):
    assert facts_of({"rating": value}, {}, Counter(), RULES) == {"rating": rating}


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"key": "0012/7.webp"}, "7"),
        ({"key": "C:\\images\\A photo.v2.JPG"}, "A photo.v2"),
        ({"key": "000000012"}, "000000012"),
        ({"key": "v1.2"}, "v1.2"),
        ({"id": "5.png"}, "5"),
        ({"key": ".hidden"}, ".hidden"),
        ({"key": "folder/"}, None),
        ({}, None),
    ],
)
def test_the_name_of_a_file_is_a_join_key(facts, name):
    assert join_key(facts, "name") == name


KOHYA = {f"/data/train/{number}.png": {"tags": "1girl, red_hat", "caption": "a hat"} for number in range(4)}
KOHYA_STEMS = {f"{number}": {"tags": "1girl, red_hat", "train_resolution": [512, 512]} for number in range(4)}
SCORED = {f"{number}.png": {"1girl": 0.9, "red_hat": 0.8, "lake": 0.1} for number in range(4)}
LISTED = {f"{number}.png": ["1girl", "red_hat"] for number in range(4)}
TEXTS = {f"{number}.png": "1girl, red_hat" for number in range(4)}


@pytest.mark.parametrize(
    "content", [{"foo": 1}, {"foo": "bar"}, {"foo": {"bar": 1, "baz": 0}}, {"foo": {"bar": "a"}}, {}]
)
def test_an_object_that_is_no_mapping_from_image_to_tags_is_refused(tmp_path, content):
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"t\.json: no known column; found: "):
        make(corpus(tmp_path, tables={"name": "t", "urls": str(tmp_path / "t.json")}))


@pytest.mark.parametrize("content", [KOHYA, KOHYA_STEMS, SCORED, LISTED, TEXTS])
def test_json_from_image_to_tags_is_joined_by_file_name(tmp_path, content):
    (tmp_path / "tagger.json").write_text(json.dumps(content))
    table = {"name": "tagger", "urls": str(tmp_path / "tagger.json"), "join": "name"}
    entry = photos(tmp_path, columns={"tags": None})
    make(corpus(tmp_path, captions=entry, tables=table, dedupe=[], tags={"min_confidence": 0.5}))
    row = records(tmp_path)["photos/0.tar#1"]
    assert (row["special"], row["general"]) == (["1girl"], ["red hat"])
    assert counted(tmp_path)["tagger", "images_matched"] == 5
    assert counted(tmp_path)["photos", "unmatched_tagger_not_in_table"] == 2


def test_a_tagger_table_with_its_own_thresholds_is_joined(tmp_path):
    row = '"{""1girl"": 0.9, ""hat"": 0.4}","[[""miku"", 0.8]]","{""general"": 1.0}"'
    csv = "image,tags,characters,rating\n" + "".join(f"img/{number}.jpg,{row}\n" for number in range(4))
    (tmp_path / "wd14.csv").write_text(csv)
    table = {
        "name": "wd14", "urls": str(tmp_path / "wd14.csv"), "join": "name",
        "columns": {"key": "image", "general": "tags", "character": "characters"},
    }  # fmt: skip
    entry = photos(tmp_path, columns={"tags": None})
    for name, own, general, character in (
        ("a", {"default": 0.5, "character": 0.75}, [], ["miku"]),
        ("b", 0.3, ["hat"], ["miku"]),
        ("c", None, [], []),
    ):
        make(corpus(
            tmp_path / name, captions=entry, tables={**table, "min_confidence": own}, dedupe=[],
            tags={"min_confidence": 0.85},
        ))  # fmt: skip
        row = records(tmp_path / name)["photos/0.tar#1"]
        assert (row["special"], row["general"], row["character"]) == (["1girl"], general, character)
        assert row["rating"] == ["safe"]


def test_parquet_with_maps_structs_and_parallel_lists_gives_the_same_tags(tmp_path):
    pairs = list(SCORES.items())
    struct = pa.struct([("tag", pa.string()), ("confidence", pa.float32())])
    kinds = {
        "map": pa.array([pairs], pa.map_(pa.string(), pa.float64())),
        "structs": pa.array([[{"tag": tag, "confidence": number} for tag, number in pairs]], pa.list_(struct)),
        "struct": pa.array([SCORES]),
        "lists": pa.array([[tag for tag, _ in pairs]]),
    }
    for name, column in kinds.items():
        columns = {"id": pa.array([1]), "t": column, "p": pa.array([list(SCORES.values())])}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        table = {"name": "t", "urls": str(tmp_path / f"{name}.parquet"), "columns": {"general": "t"}}
        extra = {"confidences": {"general": "p"}} if name == "lists" else {}
        make(corpus(tmp_path / name, tables={**table, **extra}, tags={"min_confidence": 0.349}))
        [row] = rows_of(tmp_path / name, "records")
        assert (row["special"], row["general"]) == (["1girl"], ["hat"])
        assert counted(tmp_path / name)["t", "tag_below_confidence"] == 1


def test_the_tags_of_captions_are_kept_by_confidence(tmp_path):
    entry = photos(tmp_path, columns={"general": "wd14", "tags": None}, min_confidence=0.5)
    for file in (tmp_path / "captions/captions").rglob("*.parquet"):
        metadata = pq.read_schema(file).metadata
        table = pq.read_table(file)
        source = pa.array([json.dumps({"wd14": {"1girl": 0.9, "hat": 0.2}})] * table.num_rows, pa.string())
        place = table.schema.get_field_index("source")
        table = table.set_column(place, table.schema.field(place), source)
        pq.write_table(table.replace_schema_metadata(metadata), file)
    make(corpus(tmp_path, captions=entry, dedupe=[]))
    assert records(tmp_path)["photos/0.tar#0"]["special"] == ["1girl"]
    assert not records(tmp_path)["photos/0.tar#0"]["general"]
    assert counted(tmp_path)["photos", "tag_below_confidence"] == 7


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"confidences": {"general": "p"}}, r"confidences: found general, whose tags are in no named column"),
        ({"confidences": {"rating": "p"}}, r"confidences\.rating.*Input should be 'tags', 'general'"),
        (
            {"columns": {"general": "t"}, "confidences": {"general": "p"}},
            r"t: confidences without a threshold; set tags\.min_confidence, or min_confidence of t",
        ),
        ({"min_confidence": 1.5}, r"min_confidence\.default: found 1\.5; Input should be less than or equal to 1"),
        ({"min_confidence": {"character": 0.8}}, r"min_confidence\.default: missing; it has no default"),
        ({"min_confidence": {"default": 0.1, "rating": 0.8}}, r"min_confidence\.rating: unknown key; allowed here: ar"),
    ],
)  # fmt: skip
def test_thresholds_that_cannot_be_honoured_are_refused(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        corpus(tmp_path, tables={"name": "t", "urls": "t.csv", **keys})


def test_a_column_of_confidences_that_the_table_lacks_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("id,t\n1,hat\n")
    table = {"columns": {"general": "t"}, "confidences": {"general": "p"}, "min_confidence": 0.5}
    with pytest.raises(ConfigError, match=r"t\.csv: `columns` names p; the file has: id, t"):
        make(corpus(tmp_path, tables={"name": "t", "urls": str(tmp_path / "t.csv"), **table}))


def test_a_table_of_records_with_thresholds_resumes_and_other_thresholds_are_another_recipe(tmp_path):
    rows = [{"id": 1, "tags": {**dict.fromkeys(TAGS, 0.9), "comic": 0.3}}]
    table = {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows)}
    config = corpus(tmp_path, tables=table, tags={"min_confidence": 0.5})
    make(config, until="records")
    make(config)
    assert len(rows_of(tmp_path, "records")[0]["general"]) == len(TAGS) - 1
    with pytest.raises(OutputMismatch, match=r"tags\.min_confidence\.default: 0\.5 in the output, 0\.2 in this"):
        make(corpus(tmp_path, tables=table, tags={"min_confidence": 0.2}))
