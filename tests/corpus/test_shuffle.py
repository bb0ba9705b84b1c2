"""Files of mixed texts: every text once, in an order that only the texts and the seed decide."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.corpus_job import recipe_fields
from pipeline.corpus.tables import source_tables
from pipeline.corpus.text.check_texts import check_file
from pipeline.corpus.text.draws import place
from pipeline.corpus.text.text_grammar import profile_of
from pipeline.errors import ConfigError, PipelineError
from tests.corpus.outputs import write_output
from tests.corpus.test_job import LONG, SHORT, TAGS, corpus, entry, lines, make, rows_of, shards, trained_at

SPLITS = ("train", "validation")


def inputs(folder: Path, num_files: int = 2) -> dict:
    """Write captions and a table of 60 rows in so many files; return the entries of the config."""
    rows = [{"id": number, "tags": TAGS, "short": SHORT, "long": LONG.format(number)} for number in range(60)]
    (folder / "posts").mkdir(parents=True)
    for number in range(num_files):
        lines(folder / f"posts/{num_files - number}.jsonl", rows[number::num_files])
    return {
        "captions": entry(write_output(folder / "captions", shards(2, 20))),
        "tables": {"name": "posts", "urls": str(folder / "posts")},
        "split": {"validation": 0.2},
    }


def files_of(folder: Path, split: str, epoch: int = 0, suffix: str = ".parquet") -> list[Path]:
    return sorted((folder / f"corpus/text/{split}/epoch-{epoch:03d}").glob(f"*{suffix}"))


def in_order(folder: Path, split: str, epoch: int = 0) -> list[dict]:
    return [row for file in files_of(folder, split, epoch) for row in pq.read_table(file).to_pylist()]


def without_attempt(folder: Path, path: str) -> dict:
    value = json.loads((folder / "corpus" / path).read_text())
    return {name: item for name, item in value.items() if name != "attempt"}


def test_every_text_is_in_one_file_and_every_file_has_all_sources(tmp_path):
    entries = inputs(tmp_path / "in")
    make(corpus(tmp_path / "plain", **entries, epochs=2))
    config = corpus(tmp_path, **entries, epochs=2, shuffle={"rows": 16})
    make(config)
    assert sorted(map(str, rows_of(tmp_path, "text"))) == sorted(map(str, rows_of(tmp_path / "plain", "text")))
    for split in SPLITS:
        for epoch in range(2):
            tables = [pq.read_table(file) for file in files_of(tmp_path, split, epoch)]
            sizes = [table.num_rows for table in tables]
            assert max(sizes) <= 16
            assert max(sizes) - min(sizes) <= 1
            assert len(sizes) == -(-sum(sizes) // 16)
            assert all(set(table["source"].to_pylist()) == {"photos", "posts"} for table in tables)
        # Each epoch has its own order.
        assert [row["id"] for row in in_order(tmp_path, split)] != [row["id"] for row in in_order(tmp_path, split, 1)]
    for file in (tmp_path / "corpus/text").rglob("*.parquet"):
        assert not [text for text in check_file(str(file), profile_of(config.render)) if text.fault]
    assert not (tmp_path / "corpus/staging").exists()


def test_the_files_are_the_same_bytes_however_the_inputs_are_divided(tmp_path, monkeypatch):
    results = []
    for name, num_files, slice_rows in (("a", 1, 10_000), ("b", 3, 7)):
        monkeypatch.setattr(source_tables, "SLICE_ROWS", slice_rows)
        make(corpus(tmp_path / name, **inputs(tmp_path / name / "in", num_files), shuffle={"rows": 16}))
        results.append({file.name: file.read_bytes() for split in SPLITS for file in files_of(tmp_path / name, split)})
    assert len(results[0]) > 4
    assert results[0] == results[1]


def test_texts_of_one_id_have_an_order_of_their_own(tmp_path):
    rows = [{"id": 1, "tags": [*TAGS, f"tag {number}"]} for number in range(9)]
    orders = []
    for name, listed in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).mkdir()
        table = {"name": "t", "urls": lines(tmp_path / name / "t.jsonl", listed)}
        make(corpus(tmp_path / name, tables=table, dedupe=[], shuffle={"rows": 4}, split={"validation": 0}))
        orders.append([row["user"] + row["output"] for row in in_order(tmp_path / name, "train")])
    assert len(set(orders[0])) == 9
    assert orders[0] == orders[1]


def test_the_order_is_that_of_the_places_and_another_seed_has_another(tmp_path):
    entries = inputs(tmp_path / "in")
    orders = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        make(corpus(folder, **entries, shuffle={"rows": 30, "seed": seed}))
        rows = in_order(folder, "train")
        places = [place(seed, row["seed"], row["user"] + row["output"]) for row in rows]
        assert places == sorted(places)
        orders.append([row["id"] for row in rows])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_files_have_about_the_size_in_mb(tmp_path):
    make(corpus(tmp_path, **{**inputs(tmp_path / "in"), "split": {"validation": 0}}, shuffle={"mb": 0.004}))
    sizes = [
        sum(len((row["user"] + row["output"]).encode()) for row in pq.read_table(file).to_pylist())
        for file in files_of(tmp_path, "train")
    ]
    assert len(sizes) == -(-sum(sizes) // 4_000) > 2
    longest = max(len((row["user"] + row["output"]).encode()) for row in in_order(tmp_path, "train"))
    assert max(sizes) - min(sizes) <= 2 * longest
    manifest = without_attempt(tmp_path, "manifest/train/epoch-000.json")
    assert [file["bytes"] for file in manifest["files"]] == sizes


def test_a_text_that_is_longer_than_a_file_leaves_files_without_rows(tmp_path):
    rows = [{"id": 0, "tags": TAGS}, {"id": 1, "general": [f"tag number {number}" for number in range(4000)]}]
    table = {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows)}
    render = {"lengths": {"very_long": {"max_tags": 4000}}}
    make(corpus(tmp_path, tables=table, shuffle={"mb": 0.01}, split={"validation": 0}, render=render))
    names = [file.name for file in files_of(tmp_path, "train")]
    assert names == [f"{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))]
    assert len(names) > 3
    assert len(in_order(tmp_path, "train")) == 2


def test_a_split_without_texts_has_a_manifest_without_files(tmp_path):
    make(corpus(tmp_path, **{**inputs(tmp_path / "in"), "split": {"validation": 0}}, shuffle={"rows": 50}))
    manifest = without_attempt(tmp_path, "manifest/validation/epoch-000.json")
    assert (manifest["rows"], manifest["files"]) == (0, [])
    assert not (tmp_path / "corpus/text/validation").exists()


def test_json_lines_and_packing_are_of_the_mixed_files(tmp_path):
    tokenizer = {"path": trained_at(tmp_path / "t.json"), "context": 70, "pack": 70}
    keys = {"tokenizer": tokenizer, "formats": ["parquet", "jsonl"]}
    make(corpus(tmp_path, **inputs(tmp_path / "in"), shuffle={"rows": 16}, **keys))
    out, too_long = tmp_path / "corpus", Counter()
    for split in SPLITS:
        for file in files_of(tmp_path, split):
            rows = pq.read_table(file).to_pylist()
            data = pa.input_stream(str(file.with_suffix(".jsonl.zst")), compression="zstd").read()
            assert [json.loads(line) for line in data.decode().splitlines()] == rows
            plan = pq.read_table(out / "packing" / file.relative_to(out / "text")).to_pylist()
            assert sorted(row["row"] for row in plan) == [n for n, row in enumerate(rows) if row["n_tokens"] <= 70]
            too_long.update(row["source"] for row in rows if row["n_tokens"] > 70)
    assert too_long
    counts = pq.read_table(out / "report/counts.parquet").to_pylist()
    assert {row["source"]: row["number"] for row in counts if row["reason"] == "texts_in_no_pack"} == too_long


def test_manifest_and_card_name_order_and_seed(tmp_path):
    make(corpus(tmp_path, **inputs(tmp_path / "in"), shuffle={"rows": 1600, "seed": 77}))
    manifest = without_attempt(tmp_path, "manifest/train/epoch-000.json")
    assert manifest["seed"] == 77
    assert manifest["rows"] == len(in_order(tmp_path, "train"))
    assert [file["file"] for file in manifest["files"]] == ["00000-of-00001"]
    card = (tmp_path / "corpus/README.md").read_text()
    assert f"holds at most 1,600 texts of one split and epoch. Order: {manifest['order']}. Seed: 77." in card


def test_the_shuffle_is_part_of_the_recipe_only_if_it_is_set(tmp_path):
    table = {"name": "t", "urls": "t.csv"}
    assert "shuffle" not in recipe_fields(corpus(tmp_path, tables=table), None)
    fields = recipe_fields(corpus(tmp_path, tables=table, shuffle={"rows": 5}), None)
    assert fields["shuffle"] == {"rows": 5, "mb": None, "seed": 0}


@pytest.mark.parametrize("shuffle", [{}, {"rows": 5, "mb": 1}, {"seed": 3}])
def test_a_shuffle_without_one_size_is_refused(tmp_path, shuffle):
    with pytest.raises(ConfigError, match=r"shuffle: found none or both of rows and mb; allowed: one of them"):
        corpus(tmp_path, tables={"name": "t", "urls": "t.csv"}, shuffle=shuffle)


def test_staged_texts_that_are_not_those_that_were_counted_are_refused(tmp_path):
    config = corpus(tmp_path, **inputs(tmp_path / "in"), shuffle={"rows": 16})
    make(config, until="shuffle train 0")
    [file, *_] = sorted((tmp_path / "corpus/staging/texts/train").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(PipelineError, match=r"staging/texts/train/.*: has \d+ texts, its work unit has counted \d+"):
        make(config)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        make(config)
    assert not files_of(tmp_path, "train")
