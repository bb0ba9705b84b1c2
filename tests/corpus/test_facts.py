"""What rows of well-known tables say, and when two places mean one image."""

import gzip
import json
from collections import Counter

import pyarrow as pa
import pytest

from pipeline.config.corpus_job import JoinBy, TableConfig
from pipeline.corpus.duck import Limits
from pipeline.corpus.facts import facts_of
from pipeline.corpus.identity import fingerprint, image_identity, join_key, normal_url
from pipeline.corpus.tables import list_tables, slices


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
def test_a_key_has_one_form(facts, by, key):
    assert join_key(facts, by) == key


def test_http_and_https_are_one_url_and_what_is_none_stands():
    assert normal_url("http://x.org") == normal_url("HTTPS://x.org/")
    assert normal_url("http://x.org:8080/a") == "x.org:8080/a"
    assert normal_url("http://[broken") == "http://[broken"


def test_a_fingerprint_hears_words_alone():
    assert fingerprint("A girl, by a LAKE.") == fingerprint("a girl by a lake")
    assert fingerprint("A girl.") != fingerprint("A boy.")
    assert fingerprint(" ... ") is None


def test_an_image_is_known_by_its_digest_before_its_url():
    assert image_identity({"md5": "AB", "url": "http://x.org/a"}, "r") == "md5:ab"
    assert image_identity({"url": "http://x.org/a"}, "r") == "url:x.org/a"
    assert image_identity({}, "r") == "record:r"


def test_a_gbc_graph_is_described_by_the_vertex_that_is_the_whole_image():
    descs = [{"label": "short", "text": "A dog."}, {"label": "detail", "text": "A dog runs."}]
    row = {"img_url": "u", "vertices": [{"label": "entity", "descs": []}, {"label": "image", "descs": descs}]}
    assert facts_of(row, {}, Counter()) == {"url": "u", "short": "A dog.", "long": "A dog runs."}


def test_what_is_not_of_its_form_is_null_and_counted():
    faults: Counter[str] = Counter()
    facts = facts_of({"width": "wide", "created_at": "soon", "score": 2**70, "tags": "[1,"}, {}, faults)
    assert not any(facts.values())
    assert faults == {"bad_width": 1, "bad_year": 1, "bad_score": 1, "bad_tag_list": 1}


ROWS = [{"key": "1", "caption": "a b", "width": "3"}, {"key": "2", "caption": "c", "width": "4"}]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst"])
def test_every_form_of_a_table_gives_the_same_facts(tmp_path, name):
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
    [table] = list_tables(TableConfig(name="t", urls=(str(file),)), Limits(memory_gib=0.5))
    faults: Counter[str] = Counter()
    [found] = list(slices(table, faults))
    assert found.select(["key", "title", "width"]).to_pylist() == [
        {"key": "1", "title": "a b", "width": 3},
        {"key": "2", "title": "c", "width": 4},
    ]
    assert not faults
