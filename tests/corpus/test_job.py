"""All steps of a corpus job in this process: joins, deduplication, published files and counts."""

import json
import re
import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tokenizers import Tokenizer

from pipeline.config import CorpusConfig
from pipeline.config.corpus_config import SplitConfig
from pipeline.config.load import parse_config
from pipeline.corpus.corpus_files import put_table, read_table
from pipeline.corpus.corpus_job import prepare_corpus, recipe_fields, steps
from pipeline.corpus.records.dedupe_and_split import is_held_out
from pipeline.corpus.text.check_texts import check_file
from pipeline.corpus.text.text_grammar import profile_of
from pipeline.errors import ConfigError, OutputMismatch, PipelineError, StoreError
from pipeline.ledger.run_record import claim_run
from pipeline.recipe import Recipe
from pipeline.storage import open_store
from schemas.corpus_row import CORPUS_ROW
from schemas.record import PUBLISHED
from tests.corpus.expected_shares import accept, accept_share, expected_gen_meta, expected_tasks
from tests.corpus.outputs import caption_row, digest, write_output
from tests.corpus.tiny_tokenizer import train_tokenizer
from tests.memory_store import MemoryStore

LONG = "A girl with long hair stands by a still lake. Mountains rise behind the water. The sky number {} is clear."
SHORT = "A girl stands by a lake."
TAGS = ["1girl", "solo", "long_hair", "lake", "mountain", "sky", "outdoors", "^_^"]


def corpus(folder: Path, **keys) -> CorpusConfig:
    return parse_config(CorpusConfig, {"output": str(folder / "corpus"), "memory_gib": 0.5, **keys}, (), origin="test")


def test_cluster_keys_for_captioning_are_refused(tmp_path):
    for key in ("max_concurrent_reads", "drain_timeout_s"):
        with pytest.raises(
            ConfigError, match=rf"cluster\.{key}: unknown key; allowed here: address, metrics_port, num_"
        ):
            corpus(tmp_path, cluster={key: 3})


def make(config: CorpusConfig, until: str | None = None, epochs: int | None = None) -> None:
    """Run the steps in this process, up to the step before `until`."""
    for step in steps(prepare_corpus(config, epochs)):
        if step.name == until:
            return
        if step.driver_work is not None:
            step.driver_work()
        else:
            for item in step.items:
                step.work(item)


def rows_of(folder: Path, kind: str) -> list[dict]:
    files = sorted((folder / "corpus" / kind).rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def counted(folder: Path) -> dict[tuple[str, str], int]:
    rows = pq.read_table(folder / "corpus/report/counts.parquet").to_pylist()
    return {(row["source"], row["reason"]): row["number"] for row in rows}


def shards(num_shards: int = 2, num_rows: int = 30, **rest) -> list[dict]:
    return [
        caption_row(f"{shard:05d}.tar", row, slot, text.format(f"{shard} {row}"), source={"tags": TAGS}, **rest)
        for shard in range(num_shards)
        for row in range(num_rows)
        for slot, text in (("long", LONG), ("short", SHORT))
    ]


def entry(url: str, name: str = "photos", **rest) -> dict:
    return {"name": name, "outputs": url, "long": "long", "short": "short", **rest}


def test_captions_and_tags_become_texts_without_faults(tmp_path):
    config = corpus(
        tmp_path, captions=entry(write_output(tmp_path / "in", shards())), epochs=2, split={"validation": 0.2}
    )
    make(config)
    texts = rows_of(tmp_path, "text")
    assert Counter(row["epoch"] for row in texts) == {0: 60, 1: 60}
    assert {row["split"] for row in texts} == {"train", "validation"}
    for file in (tmp_path / "corpus/text").rglob("*.parquet"):
        assert not [text for text in check_file(str(file), profile_of(config.render)) if text.fault]
    assert len({row["id"] for row in texts}) == 60
    card = (tmp_path / "corpus/README.md").read_text()
    assert "size_categories" in card
    assert card.count("<td><b>") == len({row["task"] for row in texts})
    assert not (tmp_path / "corpus/staging").exists()


def test_published_records_have_the_columns_of_both_trainers(tmp_path):
    make(corpus(tmp_path, captions=entry(write_output(tmp_path / "in", shards(1)))))
    row = rows_of(tmp_path, "records")[0]
    assert row["pixtral_caption"] == row["long"]
    assert row["florence_short"] == row["short"] == SHORT
    assert row["florence_long"] is row["phi3v_horny"] is None
    assert row["special"] == ["1girl"]
    assert row["general"] == ["solo", "long hair", "lake", "mountain", "sky", "outdoors", "^_^"]
    assert (row["width"], row["height"]) == (640, 480)


def test_the_corpus_does_not_depend_on_the_partitioning(tmp_path):
    url = write_output(tmp_path / "in", shards(2))
    table = tmp_path / "table.parquet"
    rows = [{"id": str(number), "general": TAGS, "long": LONG.format(number), "short": SHORT} for number in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), table)
    results = []
    for name, files in (("a", [rows]), ("b", [rows[30:], rows[:30]])):
        folder = tmp_path / name
        folder.mkdir()
        for number, part in enumerate(files):
            pq.write_table(pa.Table.from_pylist(part), folder / f"{number}.parquet")
        make(corpus(folder, captions=entry(url), tables={"name": "posts", "urls": str(folder)}, epochs=2))
        results.append(
            {(row["id"], row["epoch"]): (row["user"], row["output"], row["split"]) for row in rows_of(folder, "text")}
        )
    assert len(results[0]) == 2 * (60 + 50)
    assert results[0] == results[1]


def test_a_stopped_job_resumes_and_makes_the_same_rows(tmp_path):
    url = write_output(tmp_path / "in", shards(3))
    config = corpus(tmp_path, captions=entry(url))
    make(config, until="dedupe")
    num_items = [len(step.items) for step in steps(prepare_corpus(config)) if step.name == "records"][:1] or [0]
    assert num_items == [0]
    make(config)
    before = rows_of(tmp_path, "text")
    other = tmp_path / "other"
    make(corpus(other, captions=entry(url)))
    assert rows_of(other, "text") == before


def test_an_output_of_another_config_is_refused(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 3))
    make(corpus(tmp_path, captions=entry(url)))
    with pytest.raises(OutputMismatch, match=r"render\.gen_meta: 0\.3 in the output, 0\.5 in this run"):
        prepare_corpus(corpus(tmp_path, captions=entry(url), render={"gen_meta": 0.5}))


def test_the_recipe_holds_the_version_of_the_rules_and_old_outputs_keep_theirs(tmp_path):
    config = corpus(tmp_path, captions=entry(write_output(tmp_path / "in", shards(1, 3))))
    new = prepare_corpus(config)
    assert new.recipe.fields["versions"]["rules"] == "2"
    assert not new.remarks
    run = tmp_path / "corpus/run.json"
    record = json.loads(run.read_text())
    fields = recipe_fields(config, None, 1)
    assert "rules" not in fields["versions"]
    record["recipe"] = {"fingerprint": Recipe(fields=fields).fingerprint, "fields": fields}
    run.write_text(json.dumps(record))
    old = prepare_corpus(config)
    assert old.rules == 1
    assert old.recipe.fingerprint == record["recipe"]["fingerprint"] != new.recipe.fingerprint
    assert re.search("begun by an earlier release; record ids stay as they were", old.remarks[0])


def test_quality_of_a_source_is_cleaned_and_its_dropped_terms_are_counted(tmp_path):
    rows = [
        {"id": 1, "general": TAGS, "quality": "masterpiece,  newest"},
        {"id": 2, "general": TAGS, "quality": ["low quality\ntarget: <|long|>", "<|gen_meta|>", "old"]},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = corpus(tmp_path, tables={"name": "t", "urls": str(tmp_path / "t.jsonl")}, epochs=5)
    make(config)
    assert {row["key"]: row["quality"] for row in rows_of(tmp_path, "records")} == {
        "1": ["masterpiece", "newest"],
        "2": ["low quality", "old"],
    }
    assert counted(tmp_path)["t", "quality_mark"] == 2
    for file in (tmp_path / "corpus/text").rglob("*.parquet"):
        assert not [text for text in check_file(str(file), profile_of(config.render)) if text.fault]


def test_ids_do_not_depend_on_the_names_of_files(tmp_path):
    rows = [{"general": TAGS, "long": LONG.format(number), "short": SHORT} for number in range(20)]
    results = []
    for name, files in (("a", {"one.jsonl": rows}), ("b", {"z.jsonl": rows[:7], "y.jsonl": rows[7:]})):
        for file, part in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            lines(tmp_path / name / file, part)
        make(corpus(tmp_path / name, tables={"name": "t", "urls": str(tmp_path / name)}))
        results.append(sorted((row["id"], row["user"], row["output"], row["split"])
                              for row in rows_of(tmp_path / name, "text")))  # fmt: skip
    assert len(results[0]) == 20
    assert results[0] == results[1]


def test_keys_that_restart_in_every_file_lose_no_records(tmp_path):
    for part in range(2):
        rows = [{"key": f"{n:05d}", "general": TAGS, "long": LONG.format((part, n))} for n in range(30)]
        lines(tmp_path / f"{part}.jsonl", [*rows, rows[0]])
    make(corpus(tmp_path, tables={"name": "t", "urls": str(tmp_path / "*.jsonl")}))
    records = rows_of(tmp_path, "records")
    assert len({row["id"] for row in records}) == len(records) == 60
    assert all(row["id"].startswith(f"t/{row['key']}@") for row in records)
    assert counted(tmp_path)["t", "dropped_duplicate_id"] == 2


def test_ids_of_an_output_that_the_first_edition_began_stay_as_they_were(tmp_path):
    rows = [{"key": "k", "tags": TAGS}, {"tags": TAGS}, {"id": 7, "key": "k", "tags": TAGS}]
    config = corpus(tmp_path, tables={"name": "t", "urls": lines(tmp_path / "t.jsonl", rows)})
    fields = recipe_fields(config, None, 1)
    claim_run(open_store(config.output), Recipe(fields=fields), {})
    make(config)
    assert {row["id"] for row in rows_of(tmp_path, "records")} == {"t/k", "t/t.jsonl-000000#1", "t/7"}


def test_a_mode_that_the_slot_does_not_have_is_refused(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 3))
    run = tmp_path / "in/run.json"
    record = json.loads(run.read_text())
    mix = [{"mode": "descriptive"}, {"mode": None, "prompt": "List."}]
    record["about"]["job"] = {"captions": [{"slot": "long", "mix": mix}, {"slot": "short", "mode": "straightforward"}]}
    run.write_text(json.dumps(record))
    feed = {"slot": "long", "modes": ["descriptve"]}
    with pytest.raises(
        ConfigError, match=r"photos: slot long has no mode descriptve; found: custom, descriptive; did you mean desc"
    ):
        prepare_corpus(corpus(tmp_path, captions=entry(url, long=feed)))
    prepare_corpus(corpus(tmp_path, captions=entry(url, long={"slot": "long", "modes": ["descriptive", "custom"]})))


def test_a_style_of_no_source_is_refused(tmp_path):
    table = {"name": "danbooru2023", "urls": "t.csv"}
    with pytest.raises(
        ConfigError, match=r"render\.styles: no source begins with danboru; allowed: .*danbooru2023.*did you mean danb"
    ):
        corpus(tmp_path, tables=table, render={"styles": {"danboru": {"trim": False}}})
    corpus(tmp_path, tables=table, preset="tipo-v1", render={"styles": {"danbooru": {"trim": False}}})


@pytest.mark.parametrize(
    ("name", "text"), [("t.csv", "foo,bar\n1,2\n"), ("t.csv", "foo,bar\n"), ("t.jsonl", '{"foo": 1}\n{"bar": 2}\n')]
)
def test_a_table_without_a_known_column_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    table = {"name": "t", "urls": str(tmp_path / name)}
    with pytest.raises(ConfigError, match=rf"{re.escape(name)}: no known column; found: foo, bar; name the columns in"):
        make(corpus(tmp_path, tables=table))
    make(corpus(tmp_path / "named", tables={**table, "columns": {"general": "foo"}}))


def test_an_unknown_slot_is_refused_with_the_known_slots(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 3))
    with pytest.raises(ConfigError, match=r"no slot tiny in .*; found: long, short"):
        prepare_corpus(corpus(tmp_path, captions={"name": "x", "outputs": url, "long": "tiny"}))


def database(path: Path, *, old: bool = False) -> str:
    with sqlite3.connect(path) as db:
        extra = ", tag_list TEXT" if old else ""
        db.execute(
            "CREATE TABLE post (id INTEGER PRIMARY KEY, md5 TEXT, created_at TEXT, rating INT, score INT, "
            f"fav_count INT, image_width INT, image_height INT, file_url TEXT{extra})"
        )
        db.execute("CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT, type INT, popularity INT)")
        db.execute("CREATE TABLE posttagrelation (id INTEGER PRIMARY KEY, post_id INT, tag_id INT)")
        for number in range(40):
            post = (number, f"{number:032x}", "2021-05-01T00:00:00Z", number % 4, number, number, 800, 600, None)
            db.execute(f"INSERT INTO post VALUES ({', '.join('?' * len(post))}{', NULL' if old else ''})", post)
        tags = [
            ("1girl", 0),
            ("long_hair", 0),
            ("ask_(askzy)", 1),
            ("hatsune_miku", 2),
            ("vocaloid", 3),
            ("highres", 4),
        ]
        db.executemany("INSERT INTO tag VALUES (?, ?, ?, 0)", [(n, *tag) for n, tag in enumerate(tags)])
        pairs = [(post, tag) for tag in range(len(tags)) for post in range(40)]
        db.executemany("INSERT INTO posttagrelation (post_id, tag_id) VALUES (?, ?)", pairs)
    db.close()
    return str(path)


def test_a_join_by_id_adds_typed_tags_of_the_danbooru_database(tmp_path):
    rows = [{**row, "key": f"0001/{row['row'] * 2}.webp"} for row in shards(1, 30)]
    table = {"name": "danbooru", "urls": database(tmp_path / "danbooru.sqlite"), "join": "id"}
    make(corpus(tmp_path, captions=entry(write_output(tmp_path / "in", rows), columns={"tags": None}), tables=table))
    records = {row["key"]: row for row in rows_of(tmp_path, "records")}
    assert records["0001/6.webp"]["character"] == ["hatsune miku"]
    assert records["0001/6.webp"]["artist"] == ["ask (askzy)"]
    assert records["0001/6.webp"]["copyright"] == ["vocaloid"]
    assert records["0001/6.webp"]["rating"] == ["nsfw"]
    assert records["0001/6.webp"]["year"] == 2021
    assert not records["0001/58.webp"]["character"]
    counts = counted(tmp_path)
    assert counts["photos", "unmatched_danbooru_not_in_table"] == 10
    assert counts["danbooru", "images_matched"] == 20
    assert counts["danbooru", "table_rows_unused"] == 20


def test_the_old_danbooru_layout_is_refused(tmp_path):
    table = {"name": "danbooru", "urls": database(tmp_path / "danbooru.sqlite", old=True)}
    with pytest.raises(ConfigError, match="tag_list: this is the old layout"):
        make(corpus(tmp_path, tables=table))


def test_the_database_and_its_parquet_give_the_same_records(tmp_path):
    url = database(tmp_path / "danbooru.sqlite")
    twin = tmp_path / "parquet"
    twin.mkdir()
    with sqlite3.connect(url) as db:
        for name in ("post", "tag", "posttagrelation"):
            cursor = db.execute(f"SELECT * FROM {name}")
            columns = [column[0] for column in cursor.description]
            table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in cursor])
            pq.write_table(table, twin / f"{name}.parquet")
    db.close()
    results = []
    for name, urls in (("a", url), ("b", str(twin))):
        make(corpus(tmp_path / name, tables={"name": "danbooru", "urls": urls}))
        results.append(sorted(rows_of(tmp_path / name, "records"), key=lambda row: row["id"]))
    assert len(results[0]) == 40
    assert results[0] == results[1]


def test_coyo_lists_in_strings_are_parsed_and_invalid_ones_counted(tmp_path):
    lists = ['["Black", "Green"]', "['red hair', \"o'clock\"]", "[broken"]
    rows = [
        {"url": f"https://x.org/{n}.jpg", "key": n, "caption_llava": LONG.format(n), "caption_llava_short": SHORT,
         "tags_open_images": text, "tags_booru": '["tree_house"]'}
        for n, text in enumerate(lists)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "coyo.parquet")
    make(corpus(tmp_path, tables={"name": "coyo", "urls": str(tmp_path / "coyo.parquet")}))
    records = sorted(rows_of(tmp_path, "records"), key=lambda row: row["id"])
    assert [row["general"] for row in records] == [
        ["black", "green", "tree house"], ["red hair", "o'clock", "tree house"], ["tree house"],
    ]  # fmt: skip
    assert counted(tmp_path)["coyo", "bad_tag_list"] == 1


def test_a_work_unit_without_records_is_counted_and_does_not_block_the_job(tmp_path):
    refused = [caption_row("00002.tar", row, slot, None) for row in range(5) for slot in ("long", "short")]
    make(corpus(tmp_path, captions=entry(write_output(tmp_path / "in", [*shards(2, 5), *refused]))))
    assert {row["id"].partition("#")[0] for row in rows_of(tmp_path, "text")} == {
        "photos/00000.tar",
        "photos/00001.tar",
    }
    counts = counted(tmp_path)
    assert counts["photos", "dropped_nothing_known"] == counts["photos", "without_long"] == 5
    assert counts["photos", "captions_rejected"] == 10


def test_a_corpus_without_records_is_completed_with_its_counts(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,artist\n99,a\n")
    must = {"name": "t", "urls": str(table), "join": {"by": "id", "required": True}}
    make(corpus(tmp_path, captions=entry(write_output(tmp_path / "in", shards(1, 5))), tables=must))
    assert rows_of(tmp_path, "text") == rows_of(tmp_path, "records") == []
    assert counted(tmp_path)["photos", "dropped_unmatched"] == 5
    assert "0 training texts" in (tmp_path / "corpus/README.md").read_text()


def test_duplicates_are_dropped_by_reason_and_the_first_source_stays(tmp_path):
    rows = shards(1, 14)
    for row in rows:
        if row["row"] == 13:
            row["image_sha256"] = digest("00000.tar#2")
    first = write_output(tmp_path / "one", rows)
    second = write_output(tmp_path / "two", shards(1, 13))
    listed = tmp_path / "benchmark.txt"
    listed.write_text(digest("00000.tar#0") + "\n")
    entries = [entry(first, "first"), entry(second, "second")]
    make(corpus(tmp_path, captions=entries, decontaminate={"identities": str(listed)}))
    counts = counted(tmp_path)
    assert counts["first", "dropped_contaminated"] == counts["second", "dropped_contaminated"] == 1
    assert counts["first", "dropped_duplicate_image"] == 1
    assert counts["second", "dropped_duplicate_image"] == 12
    assert {row["source"] for row in rows_of(tmp_path, "records")} == {"first"}


def test_records_linked_by_digest_and_url_are_in_one_split(tmp_path):
    bridge = [
        caption_row("b.tar", n, "long", LONG.format(n), image=f"i{n}", source={"url": f"https://X.org/{n}"})
        for n in range(40)
    ]
    by_digest = [caption_row("a.tar", n, "long", LONG.format(n), image=f"i{n}", source={}) for n in range(40)]
    for row in (*bridge, *by_digest):
        row["source"] = json.dumps({**json.loads(row["source"]), "tags": TAGS})
    rows = [{"id": n, "url": f"http://x.org/{n}", "long": LONG.format(n), "tags": TAGS} for n in range(40)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    feeds = {"long": "long"}
    make(corpus(
        tmp_path,
        captions=[
            {"name": "a", "outputs": write_output(tmp_path / "a", by_digest), **feeds},
            {"name": "b", "outputs": write_output(tmp_path / "b", bridge), **feeds},
        ],
        tables={"name": "t", "urls": str(tmp_path / "t.jsonl")},
        dedupe=[],
        split={"validation": 0.5},
    ))  # fmt: skip
    sides: dict[str, set[str]] = {}
    for row in rows_of(tmp_path, "text"):
        number = int(re.split("[#/]", row["id"])[-1])
        sides.setdefault(number, set()).add(row["split"])
    assert len(sides) == 40
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "validation"}


def test_outputs_of_one_entry_are_joined_image_by_image(tmp_path):
    rows = shards(1, 5)
    long = write_output(tmp_path / "l", [row for row in rows if row["slot"] == "long"])
    short = write_output(tmp_path / "s", [row for row in rows if row["slot"] == "short"])
    make(corpus(tmp_path, captions={"name": "p", "outputs": [long, short], "long": "long", "short": "short"}))
    assert all(row["long"] and row["short"] for row in rows_of(tmp_path, "records"))


def test_json_lines_have_the_rows_of_the_parquet(tmp_path):
    url = write_output(tmp_path / "in", shards(1))
    make(corpus(tmp_path, captions=entry(url), formats=["parquet", "jsonl"], split={"validation": 0}))
    [file] = (tmp_path / "corpus/text").rglob("*.jsonl.zst")
    lines = pa.input_stream(str(file), compression="zstd").read().decode().splitlines()
    assert [json.loads(line) for line in lines] == rows_of(tmp_path, "text")


def test_the_card_counts_records_that_lack_width_or_height_and_claims_no_trainer(tmp_path):
    sizes = [{}, {"width": 5}, {"height": 5}, {"width": 4, "height": 4}, {"width": 0, "height": 4}]
    rows = [{"id": number, "tags": TAGS, **size} for number, size in enumerate(sizes)]
    make(corpus(tmp_path, tables={"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)}))
    card = (tmp_path / "corpus/README.md").read_text()
    assert "Of 4 records the width or the height is unknown" in card
    assert "readable by the TIPO" not in card
    assert "The public trainers do not read it as it is" in card


def json_lines_corpus(folder: Path) -> Path:
    """Make a corpus as JSON Lines whose first file has no text with a length class; return its folder."""
    rows = [{"id": number, "long": LONG.format(number), "short": SHORT} for number in range(3)]
    tables = [
        {"name": "a", "urls": lines(folder / "a.jsonl", rows)},
        {"name": "b", "urls": lines(folder / "b.jsonl", [{**row, "id": row["id"] + 9, "tags": TAGS} for row in rows])},
    ]
    make(corpus(folder, tables=tables, formats=["jsonl"], split={"validation": 0}))
    return folder / "corpus"


def test_json_lines_whose_first_file_has_nulls_are_loaded_with_the_types_of_the_card(tmp_path):
    out = json_lines_corpus(tmp_path)
    for file in (out / "text").rglob("*.jsonl.zst"):
        data = pa.input_stream(str(file), compression="zstd").read()
        file.rename(file.with_suffix("")).write_bytes(data)
    card = out / "README.md"
    card.write_text(card.read_text().replace(".jsonl.zst", ".jsonl"))
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))["train"]
    assert [row["source"] for row in loaded] == ["a"] * 3 + ["b"] * 3
    assert [row["length"] for row in loaded][:3] == [None] * 3
    assert {row["length"] for row in loaded} == {None, "very_short"}
    assert datasets.get_dataset_config_names(str(out)) == ["text"]


def test_the_card_names_texts_and_records_with_their_types(tmp_path):
    make(corpus(tmp_path, captions=entry(write_output(tmp_path / "in", shards(1, 5)))))
    loads = partial(datasets.load_dataset, str(tmp_path / "corpus"), split="train", cache_dir=str(tmp_path / "cache"))
    texts, records = loads(), loads("records")
    for loaded, schema, kind in ((texts, CORPUS_ROW, "text"), (records, PUBLISHED, "records")):
        assert loaded.features == datasets.Features.from_arrow_schema(schema)
        assert list(loaded) == [row for row in rows_of(tmp_path, kind) if row["id"] in set(loaded["id"])]


def test_compressed_json_lines_are_loaded_by_the_folder(tmp_path):
    pytest.importorskip("zstandard", reason="of the extra `corpus`; datasets needs it for .zst")
    out = json_lines_corpus(tmp_path)
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 6
    assert {row["length"] for row in loaded} == {None, "very_short"}


CONTEXT, PACK = 70, 128


@pytest.fixture
def tokenized(tmp_path):
    """A finished job of two sources and two epochs that counts tokens and plans packs; its tokenizer."""
    file = tmp_path / "tokenizer/tokenizer.json"
    file.parent.mkdir()
    train_tokenizer([LONG, SHORT, ", ".join(TAGS)], file)
    posts = [{"id": str(number), "general": TAGS, "short": SHORT} for number in range(20)]
    posts += [{"id": "99", "general": [f"tag number {number}" for number in range(60)]}]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in posts))
    make(corpus(
        tmp_path,
        captions=entry(write_output(tmp_path / "in", shards(2, 20))),
        tables={"name": "posts", "urls": str(tmp_path / "posts.jsonl")},
        epochs=2,
        split={"validation": 0.3},
        formats=["parquet", "jsonl"],
        tokenizer={"path": str(file.parent), "context": CONTEXT, "pack": PACK},
    ))  # fmt: skip
    return Tokenizer.from_file(str(file))


def test_token_counts_of_a_job_match_its_texts_and_report(tmp_path, tokenized):
    texts = rows_of(tmp_path, "text")
    assert len(texts) == 2 * (40 + 21)
    for row in texts:
        given, rest = (len(tokenized.encode(row[half], add_special_tokens=False).ids) for half in ("user", "output"))
        assert row["n_tokens"] == given + rest + 2
        assert row["n_trained"] == rest + 1 + (given if row["loss"] == "all" else 0)
    census = pq.read_table(tmp_path / "corpus/report/texts.parquet").to_pylist()
    for source in ("photos", "posts"):
        own = [row for row in texts if row["source"] == source]
        counts = [row for row in census if row["source"] == source]
        assert sum(row["rows"] for row in counts) == len(own)
        for name in ("n_tokens", "n_trained"):
            assert sum(row[name] for row in counts) == sum(row[name] for row in own)
        beyond = Counter(row["task"] for row in own if row["n_tokens"] > CONTEXT)
        assert beyond
        too_long: Counter[str] = Counter()
        for row in counts:
            too_long[row["task"]] += row["too_long"]
        assert +too_long == beyond
        total = sum(row["n_tokens"] for row in own)
        line = (
            f"| {source} | {len(own):,} | {total:,} | {sum(row['n_trained'] for row in own):,} | {beyond.total():,} |"
        )
        assert line in (tmp_path / "corpus/README.md").read_text()


def test_each_text_of_a_job_is_in_one_pack_or_counted_as_too_long(tmp_path, tokenized):
    out = tmp_path / "corpus"
    files = sorted((out / "text").rglob("*.parquet"))
    packed = sorted((out / "packing").rglob("*.parquet"))
    assert [file.relative_to(out / "packing") for file in packed] == [file.relative_to(out / "text") for file in files]
    unpacked = 0
    for file, plan in zip(files, packed, strict=True):
        lengths = pq.read_table(file)["n_tokens"].to_pylist()
        rows = pq.read_table(plan).to_pylist()
        fits = [number for number, length in enumerate(lengths) if length <= PACK]
        assert sorted(row["row"] for row in rows) == fits
        unpacked += len(lengths) - len(fits)
        ends: Counter[int] = Counter()
        for row in rows:
            assert (row["n_tokens"], row["start"]) == (lengths[row["row"]], ends[row["bin"]])
            ends[row["bin"]] += row["n_tokens"]
        assert max(ends.values()) <= PACK
        assert sum(ends.values()) == sum(lengths[row] for row in fits)
    assert unpacked == 2
    assert counted(tmp_path)["posts", "texts_in_no_pack"] == 2


def trained_at(path: Path, vocab: int = 400) -> str:
    """Train a tokenizer into this file; return its path."""
    path.parent.mkdir(exist_ok=True)
    train_tokenizer([LONG, SHORT, ", ".join(TAGS)], path, vocab)
    return str(path)


def test_a_tokenizer_that_cannot_be_used_ends_a_job_before_any_work(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 3))
    absent, file = str(tmp_path / "no.json"), trained_at(tmp_path / "t.json")
    for tokenizer, message in (
        (absent, r"no\.json: cannot be read"),
        ({"path": file, "eos": "<end>"}, r"t\.json: has no EOS token; looked for <end>"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare_corpus(corpus(tmp_path, captions=entry(url), tokenizer=tokenizer))
    assert not (tmp_path / "corpus").exists()


def test_the_content_of_the_tokenizer_counts_and_not_its_path(tmp_path):
    url = write_output(tmp_path / "in", shards(1, 3))
    file = trained_at(tmp_path / "a" / "tokenizer.json")
    make(corpus(tmp_path, captions=entry(url), tokenizer=file), until="publish")
    moved = (tmp_path / "a").rename(tmp_path / "b")
    make(corpus(tmp_path, captions=entry(url), tokenizer=str(moved)))
    assert all(row["n_tokens"] for row in rows_of(tmp_path, "text"))
    other = trained_at(tmp_path / "a" / "tokenizer.json", vocab=350)
    with pytest.raises(
        OutputMismatch, match=r"tokenizer\.digest: '[0-9a-f]{16}' in the output, '[0-9a-f]{16}' in this"
    ):
        prepare_corpus(corpus(tmp_path, captions=entry(url), tokenizer=other))


def test_an_output_that_is_bound_to_the_path_of_its_tokenizer_is_resumed(tmp_path):
    url, file = write_output(tmp_path / "in", shards(1, 3)), trained_at(tmp_path / "t.json")
    config = corpus(tmp_path, captions=entry(url), tokenizer=file)
    # As the first edition wrote run.json.
    fields = {**recipe_fields(config, None), "tokenizer": config.tokenizer.model_dump(mode="json")}
    first = Recipe(fields=fields)
    claim_run(open_store(config.output), first, {"corpus": config.model_dump(mode="json")})
    prepared = prepare_corpus(config)
    assert prepared.recipe.fingerprint == first.fingerprint
    assert re.search(r"an earlier version began .* and recorded only the path .*t\.json", prepared.remarks[0])
    make(config)
    assert all(row["n_tokens"] for row in rows_of(tmp_path, "text"))
    moved = (tmp_path / "t.json").rename(tmp_path / "u.json")
    with pytest.raises(OutputMismatch, match=r"tokenizer\.path: '.*t\.json' in the output, '.*u\.json' in this run"):
        prepare_corpus(corpus(tmp_path, captions=entry(url), tokenizer=str(moved)))


def lines(path: Path, rows: list) -> str:
    """Write rows as JSON Lines, texts as lines; return the path."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_records_on_a_decontamination_list_are_dropped_each_for_one_reason(tmp_path):
    captions = ("An owl.", "A hen.", "A fox.", "A cow.", "An ape.", "A bee.", "A cat.", "A cat!", "A dog.", "An eel.")
    rows = [{"id": number, "tags": TAGS, "long": text} for number, text in enumerate(captions)]
    rows[0] |= {"key": "the-key"}
    rows[1] |= {"url": "https://x.org/a?b"}
    rows[2] |= {"md5": "AB" * 16}
    rows[4] |= {"short": "Short ape."}
    rows[5] |= {"long": None, "short": "Short bee."}
    # Row 6 is on the list by its digest and repeats a caption: it is counted once, for the first reason.
    rows[6] |= {"md5": "ab" * 16, "long": "A fox."}
    rows[8] |= {"md5": "cd" * 16}
    rows[9] |= {"md5": "cd" * 16, "long": "A dog."}
    names = lines(tmp_path / "names.txt", ["the-key", "http://X.org/a?b#c", "aB" * 16, "posts/3", ""])
    texts = lines(tmp_path / "texts.txt", ["short ape", "SHORT BEE!"])
    make(corpus(
        tmp_path,
        tables={"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)},
        dedupe=["image", "caption"],
        decontaminate={"identities": names, "texts": texts},
    ))  # fmt: skip
    kept = {row["id"] for row in rows_of(tmp_path, "records")}
    assert kept - {"posts/8", "posts/9"} == {"posts/7"}
    assert len(kept) == 2
    drops = {reason: number for (_, reason), number in counted(tmp_path).items() if reason.startswith("dropped")}
    assert drops == {"dropped_contaminated": 7, "dropped_duplicate_image": 1}


def test_duplicate_captions_are_dropped_if_configured(tmp_path):
    rows = [{"id": 0, "tags": TAGS, "long": "A cat, asleep.", "short": "One."}]
    rows += [{"id": 1, "tags": TAGS, "long": "a CAT asleep", "short": "Two."}]
    rows += [{"id": 2, "tags": TAGS, "long": "A dog.", "short": "One."}]
    table = {"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)}
    make(corpus(tmp_path, tables=table, dedupe=["caption"]))
    assert len({row["id"] for row in rows_of(tmp_path, "records")} - {"posts/2"}) == 1
    assert counted(tmp_path)["posts", "dropped_duplicate_caption"] == 1


def test_another_split_seed_draws_other_images():
    roots = np.arange(20_000, dtype=np.int64) * 7919
    sides = [is_held_out(roots, SplitConfig(validation=0.1, seed=seed)) for seed in (0, 1)]
    assert all(0.09 < side.mean() < 0.11 for side in sides)
    assert 0.005 < (sides[0] & sides[1]).mean() < 0.015


def test_quality_depends_on_the_popularity_within_the_source(tmp_path):
    tables = [
        {"name": name, "urls": lines(tmp_path / f"{name}.jsonl", [
            {"id": number, "tags": TAGS, "score": lowest + number, "created_at": "2019-05-01"} for number in range(100)
        ])}
        for name, lowest in (("low", 0), ("high", 1000))
    ]  # fmt: skip
    tables[1]["urls"] = [
        tables[1]["urls"],
        lines(tmp_path / "named.jsonl", [{"id": 500, "tags": TAGS, "quality": "own"}]),
    ]
    make(corpus(tmp_path, tables=tables))
    quality = {row["id"]: row["quality"] for row in rows_of(tmp_path, "records")}
    assert quality["low/99"] == quality["high/99"] == ["masterpiece", "recent"]
    assert quality["low/0"] == quality["high/0"] == ["worst quality", "recent"]
    assert quality["high/500"] == ["own"]


def test_a_job_draws_the_shares_that_the_config_sets(tmp_path):
    rows = [{"id": number, "tags": TAGS, **({"rating": "g"} if number < 300 else {})} for number in range(600)]
    rows += [{"id": "long", "long": "A cat."}, {"id": "odd", "tags": TAGS, "rating": "x", "width": 0, "height": -3}]
    table = {"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)}
    config = corpus(tmp_path, tables=table)
    make(config)
    texts = rows_of(tmp_path, "text")
    assert len(texts) == 601
    assert accept(Counter(row["task"] for row in texts), expected_tasks(config.render, "default", "tags")).p > 1e-4
    assert accept_share(sum(row["loss"] == "all" for row in texts), 601, config.render.loss_on_all_probability).p > 1e-4
    num_predicted = sum(row["gen_meta"] for row in texts)
    assert accept_share(num_predicted, 300, expected_gen_meta(config.render, "default")).p > 1e-4
    counts = counted(tmp_path)
    assert counts["posts", "unrendered_one_caption"] == 1
    assert counts["posts", "bad_rating"] == 1
    odd = next(row for row in rows_of(tmp_path, "records") if row["id"] == "posts/odd")
    assert (odd["width"], odd["height"], odd["rating"]) == (None, None, [])


def test_a_damaged_staging_file_is_refused(tmp_path):
    config = corpus(tmp_path, captions=entry(write_output(tmp_path / "in", shards(1))))
    make(config, until="publish")
    [file] = (tmp_path / "corpus/staging/drafts").rglob("*.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        StoreError,
        match=r"staging/drafts/.*: damaged, or not a file of this corpus .*; remove it and run",
    ):
        make(config)


def test_a_flipped_bit_is_detected_or_does_not_change_rows():
    store, schema = MemoryStore("memory://bits"), pa.schema([("a", pa.int64())])
    table = pa.table({"a": np.random.default_rng(0).integers(0, 2**62, 500)})
    put_table(store, "t", table, schema)
    whole = store.get("t")
    refused = 0
    for at in range(4, len(whole), 37):
        store.put(f"{at}", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert read_table(store, f"{at}", schema).equals(table)
        except StoreError:
            refused += 1
    assert refused > len(whole) / 37 * 0.8


def test_outputs_of_different_sources_in_one_entry_are_refused(tmp_path):
    long = [row for row in shards(1, 5) if row["slot"] == "long"]
    short = [row for row in shards(1, 5) if row["slot"] == "short"]
    other = [{**row, "image_sha256": digest(f"other {row['row']}")} for row in short]
    for name, rows, message in (
        ("a", other, r"row 0 is a different image in .*; give outputs of one source"),
        (
            "b",
            short[:4],
            r"00000\.tar: the files of its outputs have different numbers of images; give outputs of",
        ),
    ):
        outputs = [write_output(tmp_path / name / "l", long), write_output(tmp_path / name / "s", rows)]
        with pytest.raises(PipelineError, match=message):
            make(corpus(tmp_path / name, captions=entry("", outputs=outputs)))


def test_tag_prefixes_set_the_category_and_feeds_select_modes(tmp_path):
    own = {"source": {"width": 5, "sha256": "no", "rating": "general"}}
    row = caption_row("0.tar", 0, "prompt", "A girl.", **own)
    tags = "1girl, artist:some_one, character: miku, rating:explicit, meta:highres, copyright:x, re:zero"
    rows = [
        row,
        {**row, "slot": "words", "mode": "booru-tags", "caption": tags},
        caption_row("0.tar", 1, "prompt", "A cat.", mode="training-prompt"),
        caption_row("0.tar", 1, "words", "hat", mode="booru-tags"),
    ]
    feeds = {"long": {"slot": "prompt", "modes": ["descriptive"]}, "short": [], "tags": "words"}
    make(corpus(tmp_path, captions=entry(write_output(tmp_path / "in", rows), **feeds)))
    first, second = sorted(rows_of(tmp_path, "records"), key=lambda row: row["id"])
    for name, value in (("artist", "some one"), ("character", "miku"), ("copyright", "x"), ("meta", "highres")):
        assert first[name] == [value]
    assert (first["special"], first["general"], first["rating"]) == (["1girl"], ["re:zero"], ["safe"])
    assert (first["width"], first["image"]) == (640, f"sha256:{digest('0.tar#0')}")
    assert (second["long"], second["general"]) == (None, ["hat"])
    assert counted(tmp_path)["photos", "without_long"] == 1


def test_an_output_with_other_aliases_is_refused(tmp_path):
    aliases = tmp_path / "aliases.csv"
    url = write_output(tmp_path / "in", shards(1, 3))
    for text in ("a,b\n", "a,c\n"):
        aliases.write_text(text)
        config = corpus(tmp_path, captions=entry(url), tag_files={"aliases": str(aliases)})
        if text == "a,b\n":
            prepare_corpus(config)
    with pytest.raises(OutputMismatch, match=r"tag_files\.aliases"):
        prepare_corpus(config)


def test_every_example_in_the_docs_is_a_valid_config():
    page = (Path(__file__).parents[2] / "docs/corpus.md").read_text()
    examples = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(examples) >= 2
    for example in examples:
        whole = {"captions": entry("out/photos"), "output": "out/corpus", **example}
        assert parse_config(CorpusConfig, whole, (), origin="docs/corpus.md").sources[0] == "photos"


def test_records_with_the_same_id_each_have_their_own_text(tmp_path):
    rows = [{"id": 1, "tags": TAGS}, {"id": 1, "long": "A cat.", "short": "Cat."}, {"id": 1, "long": "No text."}]
    table = {"name": "posts", "urls": lines(tmp_path / "posts.jsonl", rows)}
    make(corpus(tmp_path, tables=table, dedupe=[]))
    census = pq.read_table(tmp_path / "corpus/report/texts.parquet").to_pylist()
    assert {(row["task"], row["rows"]) for row in census} == {("tag", 1), ("short_to_long", 1)}
