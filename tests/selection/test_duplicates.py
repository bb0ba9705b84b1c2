"""Duplicates captioned once: of equal images the first selected one is asked, and the others name it."""

import contextlib
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from PIL import Image

from jobs.commands import cli
from pipeline.config import SourceConfig, parse_job
from pipeline.config.corpus_config import CaptionsConfig
from pipeline.corpus.tables.source_images import WorkUnit, images_of
from pipeline.errors import ConfigError, OutputMismatch, PipelineError, StoreError
from pipeline.flow import job_duplicates, prepared_job
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import prepare_job, prepare_retry, prepare_stand_ins
from pipeline.ledger import duplicates_record
from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.duplicates_record import FILE_ROWS, IndexIdentity, claim_record, read_followers
from pipeline.ledger.footer import read_footer
from pipeline.ledger.layout import committed_path, duplicates_path
from pipeline.ledger.parts_record import Part
from pipeline.ledger.quarantine import Quarantined, put_quarantine
from pipeline.ledger.shard_plan import read_plan
from pipeline.ledger.staging_cleanup import clean
from pipeline.readers import list_shards
from pipeline.readers.tar import TarFiles
from pipeline.selection.selection import in_sample
from pipeline.storage import open_store
from schemas.duplicates import FOLLOWER
from schemas.index import Hash
from schemas.status import Status
from tests.index.world import BOTH, config_of, index_all
from tests.ledger.faults import Crash, crash, dying
from tests.odd_images import encode
from tests.readers.shards import tar_of
from tests.selection.runs import committed_bytes, images_with, rows_of, run_job, run_tasks
from tests.selection.world import SLOTS, job_of

LABEL = "source.duplicates: {by: sha256}"


def picture(number: int) -> bytes:
    """One of many images; the same number gives the same bytes."""
    return encode(Image.new("RGB", (20 + number % 50, 40), (number % 256, number // 256, 7)), "PNG")


def write_shard(folder: Path, name: str, numbers, **fields) -> None:
    """A tar of pictures by number, with metadata: its row, and of each field the item of the row."""
    files = []
    for row, number in enumerate(numbers):
        values = {key: items[row] for key, items in fields.items() if items[row] is not None}
        files += [(f"{row:03d}.png", picture(number)), (f"{row:03d}.json", json.dumps(values).encode())]
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(tar_of(files))


@pytest.fixture
def folder(tmp_path):
    """Two shards of 6 rows: pictures 0 and 1 occur three times each, over both, and 4 twice."""
    write_shard(tmp_path / "in", "a.tar", [0, 1, 0, 2, 3, 4])
    write_shard(tmp_path / "in", "b.tar", [1, 5, 4, 0, 1, 6])
    return tmp_path


FOLLOWERS = {
    ("a.tar", 2): "a.tar#0",
    ("b.tar", 0): "a.tar#1",
    ("b.tar", 2): "a.tar#5",
    ("b.tar", 3): "a.tar#0",
    ("b.tar", 4): "a.tar#1",
}


def index(folder: Path, name: str = "index", hashes=(Hash.SHA256,), *, extend: bool = False, **source) -> str:
    index_all(config_of(folder / "in", folder / name, hashes, **source), extend=extend)
    return str(folder / name)


def job(folder: Path, by: str = "sha256", output: str = "out", *, captions=SLOTS, index: str = "index", **source):
    duplicates = {"index": str(folder / index), "by": by}
    made = job_of(folder / "in", captions, duplicates=duplicates, **source)
    return made.model_copy(update={"output": str(folder / output)})


def invoke(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def verified(folder: Path, output: str = "out") -> None:
    assert "each exactly once" in invoke("verify", folder / output)


def leaders_in(rows) -> dict:
    """Of the skipped rows, the leader of each image."""
    skipped = [row for row in rows.values() if row["status"] == "skipped" and row["reason"] == "duplicate"]
    assert all(row["message"] == LABEL and row["caption"] is None and row["attempts"] == 0 for row in skipped)
    return {(row["shard"], row["row"]): row["duplicate_of"] for row in skipped}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_of_equal_images_is_asked_and_the_others_name_it(folder, seed):
    index(folder)
    rows, asked = run_job(job(folder), seed=seed)
    assert leaders_in(rows) == FOLLOWERS
    assert len(rows) == 12 * len(SLOTS)
    assert len(asked) == len(set(asked)) == (12 - len(FOLLOWERS)) * len(SLOTS)
    assert {row["duplicate_of"] for row in rows.values() if row["status"] == "ok"} == {None}
    verified(folder)


def test_images_of_followers_are_not_read(folder, monkeypatch):
    index(folder)
    read, members = TarFiles.read, []
    monkeypatch.setattr(TarFiles, "read", lambda self, member: members.append(member.name) or read(self, member))
    run_job(job(folder))
    assert len([name for name in members if name.endswith(".png")]) == 12 - len(FOLLOWERS)


def test_similar_images_are_captioned_once(folder):
    (folder / "in" / "a.tar").unlink()
    small, large = (Image.new("L", size, 0) for size in ((64, 64), (128, 128)))
    for image in (small, large):
        width = image.size[0]
        image.paste(255, (0, 0, width // 2, width // 3))
    noise = Image.effect_mandelbrot((64, 64), (-2, -1, 1, 1), 50)
    pictures = [encode(image.convert("RGB"), "PNG") for image in (small, noise, large)]
    (folder / "in" / "b.tar").write_bytes(tar_of([(f"{row}.png", data) for row, data in enumerate(pictures)]))
    index(folder, hashes=BOTH)
    rows, _ = run_job(job(folder, "phash:4"))
    assert [row["duplicate_of"] for row in rows.values() if row["slot"] == "long"] == [None, None, "b.tar#0"]
    assert rows["b.tar", 2, "tags"]["message"] == "source.duplicates: {by: phash:4}"
    verified(folder)


def test_the_leader_is_the_first_selected_row(folder):
    write_shard(folder / "in", "a.tar", [0, 1, 0, 2, 3, 4], score=[1, 9, 9, 9, 9, None])
    write_shard(folder / "in", "b.tar", [1, 5, 4, 0, 1, 6], score=[9, 9, 9, 9, 1, 9])
    index(folder, metadata_fields=["score"])
    rows, asked = run_job(job(folder, where={"fields": {"score": {"min": 5}}}))
    assert leaders_in(rows) == {("b.tar", 0): "a.tar#1", ("b.tar", 3): "a.tar#2"}
    assert sorted({pair[:2] for pair in asked}) == [
        *[("a.tar", row) for row in (1, 2, 3, 4)], *[("b.tar", row) for row in (1, 2, 5)]
    ]  # fmt: skip
    assert rows["a.tar", 0, "long"]["reason"] == rows["b.tar", 4, "long"]["reason"] == "filtered"
    verified(folder)


def test_of_a_sample_each_different_image_is_asked(folder):
    write_shard(folder / "in", "b.tar", [number % 5 for number in range(60)])
    index(folder)
    rows, asked = run_job(job(folder, sample=0.4))
    sampled = [("a.tar", row) for row in range(6) if in_sample(0.4, "a.tar", row)]
    sampled += [("b.tar", row) for row in range(60) if in_sample(0.4, "b.tar", row)]
    numbers = {("a.tar", row): number for row, number in enumerate([0, 1, 0, 2, 3, 4])}
    numbers |= {("b.tar", row): row % 5 for row in range(60)}
    assert len({pair[:2] for pair in asked}) == len({numbers[image] for image in sampled}) < len(sampled)
    assert set(leaders_in(rows)) < set(sampled)
    verified(folder)


@pytest.mark.parametrize("limit", [1, 4, 6, 7])
def test_a_limit_counts_only_images_that_are_captioned(folder, limit):
    index(folder)
    rows, asked = run_job(job(folder, limit=limit))
    assert len(images_with(rows, "ok")) == min(limit, 7)
    assert len(asked) == len(SLOTS) * min(limit, 7)
    verified(folder)


def test_a_limit_is_found_over_more_and_more_shards(folder, monkeypatch):
    monkeypatch.setattr(job_duplicates, "LIMIT_SHARDS", 1)
    index(folder)
    rows, _ = run_job(job(folder, limit=6))
    assert images_with(rows, "ok") == [*[("a.tar", row) for row in (0, 1, 3, 4, 5)], ("b.tar", 1)]


def test_a_text_of_the_source_and_an_earlier_output_do_not_change_who_leads(folder):
    write_shard(folder / "in", "a.tar", [0, 0, 1], caption=[None, "mine", None])
    index(folder)
    captions = [{"slot": "long", "mode": "descriptive", "existing": {"field": "caption"}}]
    plain = job_of(folder / "in", captions).model_copy(update={"output": str(folder / "first")})
    run_job(plain)
    reused = job(folder, captions=captions).model_copy(update={"reuse": (str(folder / "first"),)})
    rows, asked = run_job(reused)
    assert asked == []
    assert rows["a.tar", 1, "long"]["duplicate_of"] == "a.tar#0"
    assert rows["a.tar", 0, "long"]["caption"] == "answer of a.tar 0 long"
    verified(folder)


def test_an_image_that_cannot_be_read_is_no_duplicate(folder):
    (folder / "in" / "a.tar").write_bytes(tar_of([(f"{row}.png", b"damaged") for row in range(3)]))
    index(folder)
    rows, _ = run_job(job(folder))
    assert images_with(rows, "failed") == [("a.tar", 0), ("a.tar", 1), ("a.tar", 2)]
    assert set(leaders_in(rows)) == {("b.tar", 4)}
    verified(folder)


# What is refused.


def test_an_index_that_does_not_describe_the_source_is_refused_by_name(folder):
    with pytest.raises(ConfigError, match=r"index: "):
        prepare_job(job(folder))
    index(folder)
    write_shard(folder / "in", "c.tar", [1])
    with pytest.raises(OutputMismatch, match=r"of 3 shards 1 do not match: c\.tar is not in it.*--extend"):
        prepare_job(job(folder))
    (folder / "in" / "c.tar").unlink()
    write_shard(folder / "in", "b.tar", [1, 2])
    with pytest.raises(OutputMismatch, match=r"b\.tar was \d+ bytes, etag .*, when it was indexed, and is"):
        prepare_job(job(folder))
    assert not (folder / "out").exists()


def test_an_index_without_the_hash_or_a_field_is_refused(folder):
    index(folder)
    with pytest.raises(ConfigError, match=r"by: phash:4: the index .* has no phash; it has sha256\. .*--hash phash"):
        prepare_job(job(folder, "phash:4"))
    with pytest.raises(ConfigError, match=r"does not keep the field 'score', which source\.where tests"):
        prepare_job(job(folder, where={"fields": {"score": {"min": 5}}}))
    slots = [{"slot": "long", "prompt": "Describe it: {source.tags.name}"}]
    with pytest.raises(ConfigError, match=r"does not keep the field 'tags', which prompts use: equal images may"):
        prepare_job(job(folder, captions=slots))
    assert not (folder / "out").exists()


def test_prompts_of_fields_that_differ_within_a_cluster_are_refused(folder):
    write_shard(folder / "in", "a.tar", [0, 1, 0], tags=["cat", "dog", "cat"], title=["a", "b", "c"])
    write_shard(folder / "in", "b.tar", [1, 1], tags=["dog", "cow"])
    index(folder, metadata_fields=["tags", "title"])
    slots = [{"slot": "long", "prompt": "Describe it: {source.title} {source.tags}"}]
    with pytest.raises(
        ConfigError,
        match=r"prompts use \{source\.title\}, in which images that are equal by sha256 differ: a\.tar row 2 has "
        r'\["c"\], and its leader a\.tar row 0 has \["a"\] \(3 such rows\)',
    ):
        prepare_job(job(folder, captions=slots))
    slots = [{"slot": "long", "prompt": "Describe it: {source.tags}"}]
    with pytest.raises(ConfigError, match=r"b\.tar row 1 has \[\"cow\"\], and its leader a\.tar row 1 has \[\"dog\"\]"):
        prepare_job(job(folder, captions=slots, output="other"))
    write_shard(folder / "in", "b.tar", [1, 1], tags=["dog", "dog"])
    index(folder, "again", metadata_fields=["tags"])
    rows, _ = run_job(job(folder, captions=slots, output="third", index="again"))
    assert set(leaders_in(rows)) == {("a.tar", 2), ("b.tar", 0), ("b.tar", 1)}


def test_another_rule_or_index_on_an_existing_output_is_refused(folder):
    index(folder, hashes=BOTH)
    run_job(job(folder))
    with pytest.raises(OutputMismatch, match=r"source\.duplicates\.by: not set in the output, 'phash:2' in this run"):
        prepare_job(job(folder, "phash:2"))
    plain = job_of(folder / "in").model_copy(update={"output": str(folder / "out")})
    with pytest.raises(OutputMismatch, match=r"source\.duplicates: \{'index': .*\} in the output, not set in this run"):
        prepare_job(plain)


@pytest.mark.parametrize("by", ["md5", "phash", "phash:9", "phash:-1", "phash:04"])
def test_an_unknown_rule_is_refused(folder, by):
    with pytest.raises(ConfigError, match=r"source\.duplicates\.by: .*allowed: sha256, or phash:0 to phash:8"):
        parse_job(
            {
                "source": {"urls": ["in"], "duplicates": {"index": "x", "by": by}},
                "output": "out",
                "model": "standin",
                "captions": [SLOTS[0]],
            }
        )


# The record.


def test_the_record_decides_from_the_first_run_on(folder):
    index(folder)
    prepared = prepare_job(job(folder))
    run_tasks(prepared, stop_after=1)
    shutil.rmtree(folder / "index")
    rows, asked = run_job(job(folder))
    assert leaders_in(rows) == FOLLOWERS
    assert {shard for shard, _, _ in asked} == {"b.tar"}
    assert any("5 of 12 images are duplicates" in remark for remark in prepared.remarks)


def test_a_reader_gets_one_file_and_only_the_rows_of_its_shard(folder, monkeypatch):
    monkeypatch.setattr(duplicates_record, "FILE_ROWS", 2)
    index(folder)
    prepared = prepare_job(job(folder))
    [record] = prepared.duplicates
    assert record.files["a.tar"] != record.files["b.tar"]
    assert {task.shard.path: len(task.duplicates.paths) for task in prepared.tasks} == {"a.tar": 1, "b.tar": 1}
    leaders = read_followers(prepared.store, prepared.tasks[1].duplicates, "b.tar")
    assert leaders == {row: leader for (shard, row), leader in FOLLOWERS.items() if shard == "b.tar"}


def followers_table(shard, rows, leader="l.tar"):
    columns = [[shard] * rows, list(range(rows)), [leader] * rows, [0] * rows, [0] * rows, [rows + 1] * rows]
    return pa.table(columns, schema=FOLLOWER)


def test_a_file_holds_whole_shards(tmp_path):
    store = open_store(str(tmp_path))
    sizes = {"a": FILE_ROWS - 1, "b": 2, "c": FILE_ROWS + 5, "d": 1, "e": 3}
    tables = [followers_table(shard, rows) for shard, rows in sizes.items()]
    identity = IndexIdentity(url="i", fingerprint="f", plan="p")
    record = claim_record(store, 0, identity, dict.fromkeys(sizes, FILE_ROWS * 2), iter(tables))
    assert record.num_followers == sum(sizes.values())
    assert list(record.files) == list(sizes)
    assert len({record.files[shard] for shard in "abc"}) == 3
    assert record.files["d"] == record.files["e"]


def test_of_two_drivers_the_first_one_decides_and_clean_removes_the_rest(folder):
    index(folder)
    prepared = prepare_job(job(folder))
    identity = prepared.duplicates[0].index
    again = claim_record(prepared.store, 0, identity, {"a.tar": 6}, iter([followers_table("a.tar", 3)]))
    assert again == prepared.duplicates[0]
    orphan = [path for path in (folder / "out" / "duplicates").glob("*.parquet") if path.name not in str(again.files)]
    assert len(orphan) == 1
    cleaned = clean(prepared.store, prepared.run_identity, read_plan(prepared.store))
    assert cleaned.removed == [f"duplicates/{orphan[0].name}"]
    rows, _ = run_job(job(folder))
    assert leaders_in(rows) == FOLLOWERS


def test_drivers_of_two_parts_have_the_same_duplicates(folder):
    index(folder)
    parts = [prepare_job(job(folder), part=Part(number, 2)) for number in (1, 2)]
    assert sorted(task.shard.path for part in parts for task in part.tasks) == ["a.tar", "b.tar"]
    for part in parts:
        run_tasks(part)
    assert leaders_in(rows_of(job(folder).output)) == FOLLOWERS
    verified(folder)


def test_clean_keeps_files_of_a_driver_that_has_not_written_its_record_yet(folder):
    index(folder)
    prepared = prepare_job(job(folder))
    prepared.store.delete([duplicates_path(0)])
    assert clean(prepared.store, prepared.run_identity, read_plan(prepared.store)).removed == []


def test_a_run_killed_at_any_call_to_the_store_has_the_same_duplicates(folder, monkeypatch):
    index(folder)
    for num in range(1, 100):
        made = job(folder, output=f"out-{num}")
        stores = []
        with monkeypatch.context() as patch:
            patch.setattr(prepared_job, "open_store", lambda url, num=num, made=stores: dying_store(url, num, made))
            with contextlib.suppress(Crash):
                prepare_job(made)
        rows, _ = run_job(made)
        assert leaders_in(rows) == FOLLOWERS
        if max(store.num_calls for store in stores) < num:
            break
    assert num > 10


def dying_store(url, num, made):
    """A store that dies after its `num`-th call; kept in `made`."""
    made.append(dying(open_store(url), num, "after", crash))
    return made[-1]


def test_a_damaged_record_and_a_lost_file_are_refused_by_name(folder):
    index(folder)
    prepared = prepare_job(job(folder))
    path = folder / "out" / duplicates_path(0)
    whole = path.read_bytes()
    path.write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"duplicates/00000\.json: damaged .*; restore it, or start a new output"):
        prepare_job(job(folder))
    path.write_bytes(whole)
    for file in (folder / "out" / "duplicates").glob("*.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match=r"duplicates/00000-.*\.parquet: .*; restore the file"):
        run_tasks(prepared)


# Stand-ins.


def stand_in(folder, bad=()):
    prepared = prepare_stand_ins(job(folder))
    return run_tasks(prepared, bad)


def test_a_leader_that_failed_gives_way_to_the_next_follower(folder):
    index(folder)
    run_job(job(folder), bad={("a.tar", 0), ("a.tar", 3)})
    before = committed_bytes(str(folder / "out"))
    asked = stand_in(folder, bad={("a.tar", 2)})  # the first stand-in fails too
    assert sorted(set(asked)) == [("a.tar", 2, "long"), ("a.tar", 2, "tags")]
    rows = rows_of(str(folder / "out"))
    assert (rows["a.tar", 2, "long"]["status"], rows["a.tar", 2, "long"]["duplicate_of"]) == ("failed", "a.tar#0")
    verified(folder)

    asked = stand_in(folder)
    assert {pair[:2] for pair in asked} == {("b.tar", 3)}
    rows = rows_of(str(folder / "out"))
    assert (rows["b.tar", 3, "long"]["status"], rows["b.tar", 3, "long"]["duplicate_of"]) == ("ok", "a.tar#0")
    assert rows["b.tar", 3, "long"]["reason"] is None
    assert committed_bytes(str(folder / "out")).keys() == before.keys()
    verified(folder)
    assert prepare_stand_ins(job(folder)).tasks == []


def test_a_stand_in_has_the_seed_and_the_prompt_of_a_first_attempt(folder):
    index(folder)
    run_job(job(folder), bad={("a.tar", 0)})
    stand_in(folder)
    plain = job_of(folder / "in").model_copy(update={"output": str(folder / "plain")})
    expected, _ = run_job(plain)
    rows = rows_of(str(folder / "out"))
    for name in ("prompt", "seed", "caption", "attempts", "image_sha256"):
        assert rows["a.tar", 2, "long"][name] == expected["a.tar", 2, "long"][name]


def test_the_followers_of_a_shard_in_quarantine_get_a_stand_in(folder):
    index(folder)
    prepared = prepare_job(job(folder))
    record = Quarantined(shard="a.tar", message="gone", attempts=1, time="now", versions={})
    put_quarantine(prepared.store, record)
    run_job(job(folder))
    asked = stand_in(folder)
    assert sorted({pair[:2] for pair in asked}) == [("b.tar", 0), ("b.tar", 2), ("b.tar", 3)]
    rows = rows_of(str(folder / "out"))
    assert leaders_in(rows) == {("b.tar", 4): "a.tar#1"}


def test_a_retry_of_a_stand_in_stays_one(folder):
    index(folder)
    run_job(job(folder), bad={("a.tar", 0)})
    stand_in(folder, bad={("a.tar", 2)})
    run_tasks(prepare_retry(job(folder), [Status.FAILED]))
    rows = rows_of(str(folder / "out"))
    assert [rows["a.tar", row, "long"]["status"] for row in (0, 2)] == ["ok", "ok"]
    assert rows["a.tar", 2, "long"]["duplicate_of"] == "a.tar#0"
    verified(folder)


def test_without_duplicates_there_is_nothing_to_stand_in(folder):
    plain = job_of(folder / "in").model_copy(update={"output": str(folder / "out")})
    run_job(plain)
    with pytest.raises(ConfigError, match=r"its job has no source\.duplicates, so no row waits for another one"):
        prepare_stand_ins(plain)
    message = invoke("retry", folder / "out", "--rows", "failed,duplicates-of-failed", code=2)
    assert "allowed: failed, rejected, or both with a comma; duplicates-of-failed" in message
    assert "rows that were never asked have no edits" in invoke(
        "retry", folder / "out", "--rows", "duplicates-of-failed", "--edited", code=2
    )


# A source that grows.


def test_a_new_shard_follows_leaders_that_exist_also_if_it_comes_first(folder):
    index(folder)
    run_job(job(folder))
    before = committed_bytes(str(folder / "out"))
    write_shard(folder / "in", "0.tar", [0, 9, 9, 5])
    with pytest.raises(OutputMismatch, match=r"0\.tar is not in it"):
        prepare_job(job(folder), Extension())
    assert len(read_plan(open_store(str(folder / "out"))).generations) == 1
    index(folder, extend=True)
    rows, asked = run_job(job(folder), extend=True)
    assert leaders_in(rows) == FOLLOWERS | {("0.tar", 0): "a.tar#0", ("0.tar", 2): "0.tar#1", ("0.tar", 3): "b.tar#1"}
    assert {pair[:2] for pair in asked} == {("0.tar", 1)}
    assert {path: data for path, data in committed_bytes(str(folder / "out")).items() if path in before} == before
    verified(folder)


def test_another_index_at_the_same_place_is_refused_when_it_is_needed_again(folder):
    index(folder)
    run_job(job(folder))
    shutil.rmtree(folder / "index")
    write_shard(folder / "in", "c.tar", [1])
    index(folder)
    with pytest.raises(OutputMismatch, match=r"its duplicates come from the index .* Give the index of"):
        prepare_job(job(folder), Extension())


def test_plan_counts_images_without_their_duplicates(folder):
    index(folder)
    described = {
        "source": {"urls": [str(folder / "in")], "duplicates": {"index": str(folder / "index")}},
        "output": str(folder / "out"),
        "model": "standin",
        "captions": list(SLOTS),
        "engine": {"kind": "echo"},
    }
    (folder / "job.yaml").write_text(json.dumps(described))
    planned = json.loads(invoke("plan", folder / "job.yaml", "--rows", "0", "--json"))
    assert (planned["selection"]["images"], planned["selection"]["counted"]) == (7, True)
    assert planned["selection"]["screened"]["skipped"] == {LABEL: 5}
    planned = json.loads(invoke("plan", folder / "job.yaml", "--rows", "0", "--json", "--set", "source.limit=6"))
    assert planned["selection"]["images"] == 6


# Exports.


def exported(folder, form="jsonl", *options):
    target = folder / f"export-{len(list(folder.iterdir()))}"
    out = invoke("export", folder / "out", target, "--to", form, "--slot", "long", *options)
    lines = [json.loads(line) for file in sorted(target.rglob("*.jsonl")) for line in file.read_text().splitlines()]
    return out, lines, target


def test_an_export_leaves_followers_out_or_gives_them_the_captions_of_their_leaders(folder):
    index(folder)
    rows, _ = run_job(job(folder))
    out, lines, _ = exported(folder)
    assert (len(lines), "left out: 5 images skipped by the selection" in out) == (7, True)
    out, lines, _ = exported(
        folder, "jsonl", "--duplicates", "--field", "shard", "--field", "row", "--field", "duplicate_of"
    )
    assert len(lines) == 12
    for line in lines:
        leader = line["duplicate_of"] or f"{line['shard']}#{line['row']}"
        shard, _, row = leader.rpartition("#")
        assert line["caption"] == rows[shard, int(row), "long"]["caption"]
    assert {(line["shard"], line["row"]): line["duplicate_of"] for line in lines if line["duplicate_of"]} == FOLLOWERS


def test_an_export_takes_the_caption_of_the_stand_in(folder):
    index(folder)
    run_job(job(folder), bad={("a.tar", 0)})
    stand_in(folder)
    _, lines, _ = exported(folder, "jsonl", "--duplicates", "--field", "shard", "--field", "row")
    captions = {(line["shard"], line["row"]): line["caption"] for line in lines}
    assert captions["b.tar", 3] == captions["a.tar", 2] == "answer of a.tar 2 long"
    assert ("a.tar", 0) not in captions


def test_an_export_names_a_missing_record_when_a_leader_failed(folder):
    index(folder)
    run_job(job(folder), bad={("a.tar", 0)})
    (folder / "out" / duplicates_path(0)).unlink()
    with pytest.raises(StoreError, match=r"duplicates/00000\.json: is missing, so it is not known which images follow"):
        exported(folder, "jsonl", "--duplicates")


def test_an_export_with_images_has_those_of_the_followers(folder):
    index(folder, hashes=BOTH)
    run_job(job(folder, "phash:0"))
    _, _, target = exported(folder, "sidecars", "--duplicates")
    files = {path.name: path for path in target.iterdir() if path.is_file()}
    assert len([name for name in files if name.endswith(".png")]) == 12
    assert files["b.tar-000000-000.png"].read_bytes() == picture(1)
    assert files["b.tar-000000-000.txt"].read_text().strip() == files["a.tar-000001-001.txt"].read_text().strip()


def test_an_export_waits_for_leaders_that_are_not_committed(folder):
    index(folder)
    prepared = prepare_job(job(folder))
    run_tasks(replace(prepared, tasks=prepared.tasks[1:]))
    with pytest.raises(
        PipelineError, match=r"shard a\.tar is not committed yet, and duplicates wait for .* of a\.tar#"
    ):
        exported(folder, "jsonl", "--duplicates")


def test_a_corpus_leaves_followers_without_a_caption_or_gives_them_that_of_their_leader(folder):
    index(folder)
    rows, _ = run_job(job(folder))
    [_, file] = list_shards(SourceConfig(urls=(str(folder / "out" / "captions"),)), (".parquet",))
    unit = WorkUnit(name="photos/b.tar", source="photos", captions=(file,))
    texts = {}
    for duplicates in (False, True):
        entry = CaptionsConfig.model_validate(
            {"name": "photos", "outputs": [str(folder / "out")], "long": [{"slot": "long"}], "duplicates": duplicates}
        )
        images = images_of(unit, entry, open_store(str(folder / "corpus")), Counter(), 2)
        texts[duplicates] = {image.row: (image.facts["key"], image.facts.get("long")) for image in images}
    keys = {row: rows["b.tar", row, "long"]["key"] for row in range(6)}
    own = {row: rows["b.tar", row, "long"]["caption"] for row in range(6)}
    leaders = {row: leader.split("#") for (shard, row), leader in FOLLOWERS.items() if shard == "b.tar"}
    led = {row: rows[shard, int(number), "long"]["caption"] for row, (shard, number) in leaders.items()}
    assert texts[False] == {row: (keys[row], own[row]) for row in range(6)}
    assert texts[True] == {row: (keys[row], own[row] or led[row]) for row in range(6)}
    assert len(led) == 4


# Verification.


def test_verify_finds_a_follower_with_another_leader(folder):
    index(folder)
    run_job(job(folder))
    path = folder / "out" / committed_path("b.tar")
    footer, _ = read_footer(path.read_bytes())
    rows = from_parquet(path.read_bytes()).to_pylist()
    rows[0]["duplicate_of"] = "a.tar#3"
    rows[2]["duplicate_of"] = "a.tar#3"
    table = pa.Table.from_pylist(rows, schema=from_parquet(path.read_bytes()).schema)
    path.write_bytes(to_parquet(table, with_contents(footer, table)))
    message = invoke("verify", folder / "out", code=1)
    assert "selection: b.tar: 2: (0, long)" in message
    assert "(1, long)" in message


def test_verify_names_a_missing_record(folder):
    index(folder)
    run_job(job(folder))
    (folder / "out" / duplicates_path(0)).unlink()
    with pytest.raises(StoreError, match=r"duplicates/00000\.json: is missing, so it cannot be checked"):
        invoke("verify", folder / "out")
