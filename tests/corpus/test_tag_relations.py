"""Danbooru's dumps of aliases and implications are read as they are; chains are resolved, circles are refused."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from pipeline.config import RecordTagsConfig
from pipeline.corpus.corpus_job import prepare_corpus
from pipeline.corpus.records.tag_relations import (
    group_implications,
    implied_tags,
    read_relations,
    resolve_aliases,
)
from pipeline.corpus.records.tags import TagType, normal_tag
from pipeline.errors import ConfigError
from tests.corpus.test_job import corpus, counted, lines, make, rows_of

G, A, C = TagType.GENERAL, TagType.ARTIST, TagType.CHARACTER

DUMP = [
    {
        "id": number, "antecedent_name": old, "consequent_name": new, "reason": "", "creator_id": 1,
        "forum_topic_id": None, "status": status, "created_at": "2013-02-28T06:36:11.000Z", "approver_id": None,
    }
    for number, (old, new, status) in enumerate([
        ("old_hat", "hat_(old)", "active"),
        ("hat_(old)", "hat", "active"),
        ("cap", "hat", "deleted"),
        ("bonnet", "hat", "pending"),
        ("bonnet", "hat", "retired"),
        ("Hat", "hat", "active"),
    ])
]  # fmt: skip


def dump(path: Path, rows: list[dict]) -> str:
    """Write a dump in the format of the suffix."""
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        lines(path, rows)
    return str(path)


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.json", "d.jsonl.gz"])
def test_active_lines_of_a_dump_are_used_in_each_of_its_forms(tmp_path, name):
    url = dump(tmp_path / name, DUMP)
    data = Path(url).read_bytes()
    relations = read_relations(url, gzip.decompress(data) if name.endswith(".gz") else data)
    assert relations.pairs == [("old hat", "hat (old)"), ("hat (old)", "hat")]
    assert relations.inactive == {"deleted": 1, "pending": 1, "retired": 1}


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.json", "d.jsonl.gz"])
def test_a_job_takes_dumps_and_says_what_it_leaves_out(tmp_path, name):
    implications = [
        {"antecedent_name": tag, "consequent_name": implied, "status": status}
        for tag, implied, status in (
            ("red_hat", "hat", "active"), ("hat", "headwear", "active"), ("lake", "water", "deleted"),
            ("hatsune_miku_(append)", "hatsune_miku", "active"), ("twins", "2girls", "active"),
        )
    ]  # fmt: skip
    files = {
        "aliases": dump(tmp_path / f"a.{name[2:]}", DUMP),
        "implications": dump(tmp_path / f"i.{name[2:]}", implications),
    }
    rows = [
        {"id": 1, "general": ["old_hat", "lake"]},
        {"id": 2, "general": ["red hat", "bonnet", "twins"], "character": ["hatsune_miku_(append)"]},
    ]
    tables = {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows)}
    config = corpus(tmp_path, tables=tables, tag_files=files, tags={"add_implied": True})
    assert prepare_corpus(config).remarks == [
        "tag_files.aliases: 2 active lines are used, 1 deleted, 1 pending, 1 retired are left out",
        "tag_files.implications: 4 active lines are used, 1 deleted are left out",
    ]
    make(config)
    first, second = sorted(rows_of(tmp_path, "records"), key=lambda row: row["id"])
    assert first["general"] == ["hat", "lake", "headwear"]
    assert second["general"] == ["red hat", "bonnet", "twins", "hat", "headwear"]
    assert second["special"] == ["2girls"]
    assert second["character"] == ["hatsune miku (append)", "hatsune miku"]
    assert counted(tmp_path)["t", "tag_implied_added"] == 5
    pruned = tmp_path / "pruned"
    make(corpus(pruned, tables=tables, tag_files=files, tags={"prune_implied": True}))
    first, second = sorted(rows_of(pruned, "records"), key=lambda row: row["id"])
    assert (first["general"], second["general"]) == (["hat", "lake"], ["red hat", "bonnet", "twins"])


def test_chains_of_aliases_end_at_the_current_name():
    pairs = [("a", "b"), ("b", "c"), ("d", "a"), ("c", "e"), ("x", "y"), ("x", "z")]
    assert resolve_aliases("f", pairs) == {"a": "e", "b": "e", "c": "e", "d": "e", "x": "z"}


@pytest.mark.parametrize(
    "pairs", [[("x", "a"), ("a", "b"), ("b", "c"), ("c", "a")], [("a", "b"), ("b", "a")], [("b", "c"), ("c", "b")]]
)
def test_circles_are_refused_by_name(pairs):
    with pytest.raises(ConfigError, match=r"^f: the aliases (\w) -> .*\1 form a circle; remove one of these lines"):
        resolve_aliases("f", pairs)
    with pytest.raises(ConfigError, match=r"^f: the implications (\w) -> .*\1 form a circle; remove one of these"):
        group_implications("f", pairs, {})


def test_implications_without_a_circle_may_meet_and_use_current_names():
    pairs = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("old", "a"), ("d", "new d"), ("x", "y")]
    implications = group_implications("f", pairs, {"old": "x", "y": "x", "new d": "d"})
    assert implications == {"a": ("b", "c"), "b": ("d",), "c": ("d",), "x": ("a",)}
    added = list(implied_tags([(G, "X"), (C, "c")], normal_tag, implications))
    assert added == [(G, "a"), (C, "d"), (G, "b")]
    long = [(f"t{number}", f"t{number + 1}") for number in range(5000)]
    assert len(list(implied_tags([(G, "t0")], normal_tag, group_implications("f", long, {})))) == 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nc\n", r"f: line 2 has 1 fields; allowed: two, `from,to`, or a header with antecedent_name and conse"),
        ('{"antecedent_name": "a"}\n', r"f: line 1 does not have antecedent_name and consequent_name; give a dump"),
        ('{"antecedent_name": "a", "consequent_name": "b"}\n{broken\n', r"f: line 2 is not JSON .*; restore the file"),
        ("[1]", r"f: entry 1 does not have antecedent_name"),
        ("[1", r"f: is not JSON"),
        ("antecedent_name,consequent_name,status\na\n", r"f: line 2 does not have antecedent_name"),
    ],
)
def test_a_line_of_another_form_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        read_relations("f", text.encode())


def test_settings_of_implications_that_cannot_be_honoured_are_refused(tmp_path):
    table = {"name": "t", "urls": lines(tmp_path / "t.jsonl", [{"id": 1, "tags": ["hat"]}])}
    with pytest.raises(ConfigError, match=r"tags\.add_implied: true needs implications; set tag_files\.implications"):
        prepare_corpus(corpus(tmp_path, tables=table, tags={"add_implied": True}))
    with pytest.raises(ValueError, match="found add_implied and prune_implied; allowed: one of them"):
        RecordTagsConfig(add_implied=True, prune_implied=True)
    (tmp_path / "i.csv").write_text("hat,headwear\n")
    prepared = prepare_corpus(corpus(tmp_path, tables=table, tag_files={"implications": str(tmp_path / "i.csv")}))
    assert prepared.remarks == ["tag_files.implications: has no effect without tags.add_implied or tags.prune_implied"]


def test_an_added_tag_follows_the_rules_for_tags(tmp_path):
    (tmp_path / "i.csv").write_text("cat_ears,animal_ears\nmiku,vocaloid\n")
    rows = [{"id": 1, "general": ["cat_ears"], "artist": ["miku"], "copyright": ["vocaloid"]}]
    table = {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows)}
    tags = {"add_implied": True, "blacklist": ["animal ears"]}
    make(corpus(tmp_path, tables=table, tag_files={"implications": str(tmp_path / "i.csv")}, tags=tags))
    [row] = rows_of(tmp_path, "records")
    assert (row["general"], row["artist"], row["copyright"]) == (["cat ears"], ["miku"], ["vocaloid"])
    assert counted(tmp_path)["t", "tag_blacklist"] == 1
