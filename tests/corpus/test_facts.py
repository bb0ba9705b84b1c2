"""Facts of rows of well-known tables, and keys that identify images."""

import gzip
import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.corpus_config import JoinBy, TableConfig
from pipeline.corpus.tables.column_mapping import facts_of
from pipeline.corpus.tables.identity import fingerprint, image_identity, join_key, normal_url
from pipeline.corpus.tables.source_tables import list_tables, slices
from pipeline.errors import ConfigError, PipelineError
from pipeline.storage.duckdb_session import split_by_unit
from tests.readers.shards import tar_of


@pytest.mark.parametrize(
    ("facts", "by", "key"),
    [
        ({"key": "0123/7000000.webp"}, JoinBy.ID, "7000000"),
        ({"id": "0042"}, JoinBy.ID, "42"),
        ({"key": "a/b.jpg"}, JoinBy.ID, None),
        ({"key": "000000042"}, JoinBy.KEY, "000000042"),
        ({"url": "https://Example.ORG:443/A?b=1#c"}, JoinBy.URL, "example.org/A?b=1"),
        ({"md5": " ABCD "}, JoinBy.MD5, "abcd"),
        ({}, JoinBy.SHA256, None),
    ],
)
def test_join_keys_are_normalised(facts, by, key):
    assert join_key(facts, by) == key


def test_http_and_https_urls_are_equal_and_other_texts_are_unchanged():
    assert normal_url("http://x.org") == normal_url("HTTPS://x.org/")
    assert normal_url("http://x.org:80/a") == normal_url("https://x.org:443/a") == "x.org/a"
    assert normal_url("http://x.org:8080/a") == "x.org:8080/a"
    assert normal_url("http://[broken") == "http://[broken"


def test_a_fingerprint_depends_only_on_words():
    assert fingerprint("A girl, by a LAKE.") == fingerprint("a girl by a lake")
    assert fingerprint("A girl.") != fingerprint("A boy.")
    assert fingerprint(" ... ") is None


def test_a_digest_identifies_an_image_before_its_url():
    assert image_identity({"md5": "AB", "url": "http://x.org/a"}, "r") == "md5:ab"
    assert image_identity({"url": "http://x.org/a"}, "r") == "url:x.org/a"
    assert image_identity({}, "r") == "record:r"


def test_a_gbc_graph_has_the_captions_of_its_image_vertex():
    descs = [{"label": "short", "text": "A dog."}, {"label": "detail", "text": "A dog runs."}]
    row = {"img_url": "u", "vertices": [{"label": "entity", "descs": []}, {"label": "image", "descs": descs}]}
    assert facts_of(row, {}, Counter()) == {"url": "u", "short": "A dog.", "long": "A dog runs."}


def test_a_value_of_the_wrong_type_is_null_and_counted():
    faults: Counter[str] = Counter()
    facts = facts_of({"width": "wide", "created_at": "soon", "score": 2**70, "tags": "[1,"}, {}, faults)
    assert not any(facts.values())
    assert faults == {"bad_width": 1, "bad_year": 1, "bad_score": 1, "bad_tag_list": 1}


@pytest.mark.parametrize(
    ("value", "tags", "faults"),
    [
        ("1girl solo long_hair", ["1girl", "solo", "long_hair"], {}),
        ("1girl solo", ["1girl", "solo"], {}),
        ("long hair", ["long hair"], {}),
        ("long_hair", ["long_hair"], {}),
        ("^_^", ["^_^"], {}),
        ("1girl, long hair", ["1girl", " long hair"], {}),
        ("1girl\nlong hair\n", ["1girl", "long hair"], {}),
        ({"1girl": 0.99}, [], {"bad_tag_list": 1}),
        ('{"1girl": 0.99}', [], {"bad_tag_list": 1}),
        ("{'1girl': 0.99, 'solo': 0.5}", [], {"bad_tag_list": 1}),
        ("{1girl}, solo", ["{1girl}", " solo"], {}),
        ("{long hair}", ["{long hair}"], {}),
        ("nan", [], {"bad_tag_list": 1}),
        ("None", [], {"bad_tag_list": 1}),
        (float("nan"), None, {}),
        (0.5, [], {"bad_tag_list": 1}),
        (True, [], {"bad_tag_list": 1}),
        (["hat", None, float("nan"), 2019], ["hat", "2019"], {}),
        ([["hat", 0.9], {"name": "hat"}, 0.5, True, "hat"], ["hat"], {"bad_tag": 4}),
        ('[["hat", 0.9], "hat"]', ["hat"], {"bad_tag": 1}),
    ],
)
def test_what_is_no_tag_is_counted(value, tags, faults):
    counted: Counter[str] = Counter()
    assert facts_of({"tags": value}, {}, counted).get("tags") == tags
    assert +counted == faults


def test_half_a_surrogate_pair_is_replaced():
    row = {"key": "a\ud800", "tags": ["hat\udfff", "帽子"], "long": "A \ud83d cat 😀."}
    assert facts_of(row, {}, Counter()) == {"key": "a?", "tags": ["hat?", "帽子"], "long": "A ? cat 😀."}


def test_numbers_beyond_their_field_are_null_and_counted():
    counted: Counter[str] = Counter()
    row = {"width": 2**31, "height": 2**31 - 1, "score": float("inf"), "fav_count": "1e400"}
    assert facts_of(row, {}, counted) == {"width": None, "height": 2**31 - 1, "score": None, "favorites": None}
    assert counted == {"bad_width": 1, "bad_score": 1, "bad_favorites": 1}


ROWS = [{"key": "1", "caption": "a b", "width": "3"}, {"key": "2", "caption": "c", "width": "4"}]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_every_table_format_gives_the_same_facts(tmp_path, name):
    file = tmp_path / name
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    mark = "\t" if "tsv" in name else ","
    separated = "\n".join(mark.join(row.values()) for row in [{key: key for key in ROWS[0]}, *ROWS]).encode()
    forms = {
        "t.csv": separated,
        "t.tsv": separated,
        "t.json": json.dumps(ROWS, indent=2).encode(),
        "t.jsonl": lines,
        "t.jsonl.gz": gzip.compress(lines),
        "t.jsonl.zst": pa.Codec("zstd").compress(lines, asbytes=True),
    }
    file.write_bytes(forms[name])
    [table] = list_tables(TableConfig(name="t", urls=(str(file),)), 0.5)
    faults: Counter[str] = Counter()
    [result] = list(slices(table, faults))
    assert result.select(["key", "title", "width"]).to_pylist() == [
        {"key": "1", "title": "a b", "width": 3},
        {"key": "2", "title": "c", "width": 4},
    ]
    assert not faults


def sliced(path, **columns):
    """Return the facts of a table of one slice, and the counts of faults."""
    [table] = list_tables(TableConfig(name="t", urls=(str(path),), columns=columns), 0.5)
    faults: Counter[str] = Counter()
    return [row for part in slices(table, faults) for row in part.to_pylist()], +faults


def test_a_byte_order_mark_is_not_part_of_a_column_name(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfkey,caption\n1,a\n")
    assert sliced(tmp_path / "t.csv")[0][0]["key"] == "1"


@pytest.mark.parametrize("line", ["1,2,3", "1"])
def test_a_line_with_more_or_fewer_fields_than_the_header_is_refused(tmp_path, line):
    (tmp_path / "t.csv").write_text(f"key,caption\n{line}\n")
    with pytest.raises(PipelineError, match=r"t\.csv: line 2 does not have the 2 fields of the header; repair"):
        sliced(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_json_values_that_are_not_objects_are_left_out_and_counted(tmp_path, name):
    (tmp_path / name).write_text('{"key": "1"}\n{broken\n[1]\n{"key": "2"}\n')
    rows, faults = sliced(tmp_path / name)
    assert [row["key"] for row in rows] == ["1", "2"]
    assert faults == {"bad_row": 2}


def danbooru(folder, tags=((1, "hat", 0),), relations=((1, 1),), **post):
    """Write the Parquet files of the metadata database, with one post."""
    row = {"id": 1, "md5": "a", "created_at": "2020-01-01", "rating": 0, "score": 1, "fav_count": 2}
    row |= {"image_width": 3, "image_height": 4, "file_url": None, **post}
    tables = {
        "post": [row],
        "tag": [{"id": number, "name": name, "type": kind, "popularity": 0} for number, name, kind in tags],
        "posttagrelation": [
            {"id": number, "post_id": post_id, "tag_id": tag} for number, (post_id, tag) in enumerate(relations)
        ],
    }
    folder.mkdir()
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def test_relations_of_unknown_posts_and_tags_are_ignored(tmp_path):
    tags = [(1, "hat", 0), (2, "shoe", 0)]
    [row], _ = sliced(danbooru(tmp_path / "a", tags, [(0, 1), (1, 9), (1, 2), (1, 1), (5, 1)]))
    assert row["general"] == ["shoe", "hat"]


def test_tag_types_of_the_danbooru_api_and_the_old_layout_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tag 'x' has type 5; allowed: .*danbooru's API have other numbers"):
        sliced(danbooru(tmp_path / "a", [(1, "x", 5)]))
    with pytest.raises(ConfigError, match="tag_list_general: this is the old layout"):
        sliced(danbooru(tmp_path / "b", tag_list_general="$1#"))


def test_a_result_is_split_by_unit_whatever_its_batches():
    parts = [0, 0, 0, 2, 2, 5, 5, 5, 7]
    table = pa.table({"unit": pa.array(parts, pa.int32()), "row": pa.array(range(9), pa.int32())})
    for size in (1, 2, 4, 9):
        result = {
            number: rows["row"].to_pylist() for number, rows in split_by_unit(table.to_batches(max_chunksize=size))
        }
        assert result == {0: [0, 1, 2], 2: [3, 4], 5: [5, 6, 7], 7: [8]}
    assert list(split_by_unit([])) == []


def test_a_truncated_tar_gives_its_complete_rows_and_is_counted(tmp_path):
    files = [
        (f"{n}.{suffix}", b"-" if suffix == "jpg" else b'{"tags": "hat"}')
        for n in range(4)
        for suffix in ("jpg", "json")
    ]
    whole = tar_of(files)
    (tmp_path / "t.tar").write_bytes(whole[: 5 * 1024 + 512 + 3])
    rows, faults = sliced(tmp_path / "t.tar")
    assert [(row["key"], row["tags"]) for row in rows] == [("0", ["hat"]), ("1", ["hat"]), ("2", None)]
    assert faults == {"bad_row": 1}
