"""The committed rows of an output as source rows: identities, fields, captions, and images read apart from them."""

import json
import pickle
import shutil

import pytest

from pipeline.config import parse_job
from pipeline.errors import ConfigError, OutputMismatch, ShardUnreadable
from pipeline.flow.prepared_job import Extension, prepare_job, read_spec
from pipeline.ledger.layout import committed_path
from pipeline.ledger.run_record import read_run
from pipeline.readers import list_source, open_shard, parent
from pipeline.readers.formats import count_images, open_head
from pipeline.storage import open_store
from schemas.status import Reason, Status
from tests.chained.world import (
    CHILD,
    DAMAGED,
    NUM_ROWS,
    WEIGHTS,
    WITHOUT_ALT,
    amend,
    child_job,
    image_of,
    parent_job,
    retry,
    run,
    write_source,
)

MAX_BYTES = 1 << 20


@pytest.fixture
def folder(tmp_path):
    write_source(tmp_path / "in")
    run(parent_job(tmp_path))
    return tmp_path


def source_of(folder, captions=CHILD, **source):
    return read_spec(child_job(folder, captions, source=source), WEIGHTS).source


def rows_of(source, shard=0, opener=open_shard, **arguments):
    with opener(list_source(source).shards[shard], source, MAX_BYTES, **arguments) as reader:
        return list(reader.rows(None))


def test_the_shards_are_the_committed_files_with_the_identity_of_the_shards_that_they_caption(folder):
    planned = prepare_job(parent_job(folder)).plan.shards
    listed = list_source(source_of(folder))
    recipe = read_run(open_store(str(folder / "parent"))).fingerprint
    assert listed.remarks == ()
    assert [shard.path for shard in listed.shards] == ["a.tar", "b.tar"]
    for shard in listed.shards:
        origin = planned[shard.path]
        assert (shard.size, shard.etag, shard.origin) == (origin.size, f"{recipe}:{origin.etag}", origin)
        assert shard.url == f"{folder}/parent/captions/{shard.path}.parquet"
        assert pickle.loads(pickle.dumps(shard)) == shard


def test_a_retry_and_an_edit_of_the_parent_change_no_shard(folder):
    before = list_source(source_of(folder)).shards
    amend(parent_job(folder), "a.tar", 0, "long", "Another text.")
    retry(parent_job(folder), statuses=[Status.FAILED])
    assert list_source(source_of(folder)).shards == before


def test_rows_have_the_parents_key_fields_and_captions_and_the_image_of_its_source(folder):
    source = source_of(folder, metadata_fields=["alt"])
    with open_shard(list_source(source).shards[0], source, MAX_BYTES) as reader:
        assert (reader.num_images, reader.layout) == (NUM_ROWS, "captions in the slots long, tags")
        rows = list(reader.rows(None))
        reader.check()
    assert [(row.row, row.key) for row in rows] == [(row, f"{row:03d}") for row in range(NUM_ROWS)]
    first = rows[0]
    assert first.data == image_of(0)
    assert first.metadata == {
        "alt": "alt 0",
        "captions": {"long": "the long of a.tar 0", "tags": "the tags of a.tar 0"},
    }
    assert (first.parent.format, first.parent.width, first.parent.num_bytes) == ("PNG", 20, len(first.data))
    assert "alt" not in rows[WITHOUT_ALT].metadata
    assert rows[DAMAGED].data == b"damaged"


@pytest.mark.parametrize(
    ("fields", "captions"),
    [
        ([], {"long"}),
        (["captions"], {"long", "tags"}),
        (["*"], {"long", "tags"}),
        (["captions.tags"], {"long", "tags"}),
    ],
)
def test_a_row_has_the_captions_of_the_slots_that_the_job_names(folder, fields, captions):
    [first, *_] = rows_of(source_of(folder, CHILD[:1], metadata_fields=fields))
    assert first.metadata["captions"].keys() == captions


def test_a_row_whose_named_slot_has_no_caption_is_skipped_and_its_image_is_not_read(folder):
    amend(parent_job(folder), "a.tar", 1, "long", None)
    rows = rows_of(source_of(folder, CHILD[:2]))
    skipped = {row.row: row for row in rows if row.reason is not None}
    assert sorted(skipped) == [1, DAMAGED]
    for row in skipped.values():
        assert (row.reason, row.data) == (Reason.NO_PARENT_CAPTION, None)
        assert row.message == "source.captions: no ok caption in slot long"


def test_without_images_no_byte_of_them_is_read(folder):
    shutil.rmtree(folder / "in")
    source = source_of(folder, CHILD[:1]).without_images()
    rows = rows_of(source)
    assert [row.data for row in rows] == [None] * NUM_ROWS
    assert [row.reason for row in rows if row.row != DAMAGED] == [None] * (NUM_ROWS - 1)
    assert rows[0].metadata["captions"] == {"long": "the long of a.tar 0"}
    with pytest.raises(ShardUnreadable, match="cannot be opened"):
        rows_of(source_of(folder, CHILD[:1]))


def test_only_the_wanted_rows_are_read(folder):
    source = source_of(folder)
    with open_shard(list_source(source).shards[0], source, MAX_BYTES) as reader:
        rows = list(reader.rows({1, 3}))
    assert [(row.row, row.data) for row in rows] == [(1, image_of(1)), (3, image_of(3))]


def test_a_head_and_a_count_of_a_shard(folder):
    source = source_of(folder)
    rows = rows_of(source, opener=open_head, num_images=2)
    assert rows[0].data == image_of(0)
    assert count_images(list_source(source).shards[0], source).num_images == NUM_ROWS


def test_shards_that_the_parent_has_not_committed_are_named_and_added_later(folder):
    write_source(folder / "in", "c.tar")
    job = parent_job(folder)
    prepare_job(job, Extension())
    listed = list_source(source_of(folder))
    assert [shard.path for shard in listed.shards] == ["a.tar", "b.tar"]
    assert listed.remarks == (
        f"source.captions: 1 of 3 shards of {folder}/parent are not committed; `joyfleet caption JOB --extend` adds "
        "them when they are",
    )
    child = child_job(folder)
    run(child)
    run(job)
    assert "c.tar" in prepare_job(child).remarks[-1]
    assert run(child, extension=Extension()).asked[0][0] == "c.tar"
    assert [len(part.shards) for part in prepare_job(child).plan.generations] == [2, 1]


def test_images_of_a_parent_whose_source_has_moved(folder):
    (folder / "in").rename(folder / "moved")
    with pytest.raises(ShardUnreadable, match="cannot be opened"):
        rows_of(source_of(folder))
    assert rows_of(source_of(folder, urls=[str(folder / "moved")]))[0].data == image_of(0)
    write_source(folder / "moved", "a.tar", rows=2)
    with pytest.raises(OutputMismatch, match=r"1 of 2 planned shards have changed: a\.tar was"):
        list_source(source_of(folder, urls=[str(folder / "moved")]))


def test_a_chain_of_three_reads_the_images_of_the_first_source(folder):
    run(child_job(folder, CHILD[:1]))
    slots = [{"slot": "tiny", "prompt": "{short} ({source.alt})"}]
    policies = {"alt": {"missing": "omit"}}
    third = child_job(folder, slots, "third", {"captions": str(folder / "child")}, prompt_fields=policies)
    source = read_spec(third, WEIGHTS).source
    rows = rows_of(source)
    assert rows[0].data == image_of(0)
    assert rows[0].metadata["captions"] == {"short": "the short of a.tar 0"}
    assert list_source(source).shards[0].origin == prepare_job(parent_job(folder)).plan.shards["a.tar"]
    shutil.rmtree(folder / "in")
    assert rows_of(source.without_images())[0].metadata["captions"] == {"short": "the short of a.tar 0"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store, path: store.delete([path]), "is gone; restore it"),
        (lambda store, path: store.put(path, store.get(path)[:-9]), "not a whole Parquet file"),
        (lambda store, path: store.put(path, store.get(committed_path("b.tar"))), "holds captions of b.tar"),
    ],
)
def test_a_damaged_or_foreign_file_is_an_unreadable_shard(folder, spoil, message):
    source = source_of(folder)
    [shard, _] = list_source(source).shards
    spoil(open_store(str(folder / "parent")), committed_path("a.tar"))
    with pytest.raises(ShardUnreadable, match=message), open_shard(shard, source, MAX_BYTES):
        pass


def test_a_parent_that_cannot_be_a_source_is_refused(folder):
    with pytest.raises(ConfigError, match=r"has no slot 'lang', and this job uses \{lang\}; its slots: long, tags"):
        list_source(source_of(folder, [{"slot": "a", "prompt": "In {lang}"}]))
    with pytest.raises(ConfigError, match=r"no run\.json, so not an output of JoyFleet"):
        list_source(source_of(folder / "in", [{"slot": "a", "prompt": "x"}]))
    empty = parent_job(folder, "empty")
    prepare_job(empty)
    source = source_of(folder).model_copy(update={"captions": empty.output})
    with pytest.raises(ConfigError, match="has no committed shard yet; caption its images first"):
        list_source(source)
    record = json.loads((folder / "empty/run.json").read_text())
    del record["about"]["job"]
    (folder / "empty/run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="is a corpus; give an output of `joyfleet caption`"):
        list_source(source)


def test_a_place_that_only_the_parent_names_is_read_with_consent(folder, monkeypatch):
    monkeypatch.setattr(parent, "_source_of", lambda *_: parent_job(folder).source)
    planned = prepare_job(parent_job(folder)).plan.shards
    foreign = {path: type(shard)(path, f"https://host/{path}", 1, "e") for path, shard in planned.items()}
    plan = type("Plan", (), {"shards": foreign})()
    monkeypatch.setattr(parent, "read_plan", lambda _: plan)
    with pytest.raises(
        ConfigError, match=r"would fetch https://host/a\.tar.*name their source beside it: source\.urls"
    ):
        list_source(source_of(folder))
    assert len(list_source(source_of(folder).without_images()).shards) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": {}}, "found neither urls nor captions"),
        ({"source": {"captions": "p", "split": "train"}}, "found split beside captions"),
        ({"source": {"captions": "p", "key_column": "id", "images_per_shard": 2}}, "images_per_shard, key_column"),
        ({"prompt_fields": {"captions.alt": {}}}, r"prompt_fields\.captions\.alt: no prompt"),
    ],
)
def test_a_config_that_cannot_be_honoured_is_refused(tmp_path, change, message):
    job = child_job(tmp_path).model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        parse_job({**job, **change})


@pytest.mark.parametrize("output", ["parent", "parent/captions/child", "parent/below"])
def test_an_output_inside_its_parent_is_refused(folder, output):
    with pytest.raises(ConfigError, match=r"is inside the output .*parent that is its source; give a folder outside"):
        prepare_job(child_job(folder, output=output))


def test_an_old_parent_is_a_source(tmp_path, monkeypatch):
    from tests.golden import golden

    monkeypatch.chdir(golden.copy_of(golden.FIRST, tmp_path / "golden"))
    job = child_job(
        tmp_path, CHILD[:2], source={"captions": golden.OUTPUT, "urls": golden.CAPTION_JOB["source"]["urls"]}
    )
    source = read_spec(job, WEIGHTS).source
    listed = list_source(source)
    assert [shard.path for shard in listed.shards] == [
        "photos/images-00000",
        "shards/00000.tar",
        "shards/00001.parquet",
        "shards/00002.zip",
    ]
    engine = run(job)
    assert {shard for shard, _, _ in engine.asked} == {shard.path for shard in listed.shards}
