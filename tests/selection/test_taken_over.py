"""`reuse`: ok rows of an earlier output of the same recipe are taken over, and nothing is asked twice."""

import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.flow.calibrate import prepare_trial
from pipeline.flow.prepared_job import check_job, prepare_job, prepare_retry, run_identity_of
from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.footer import read_footer
from pipeline.ledger.layout import committed_path
from pipeline.ledger.taken_over import read_taken_over
from pipeline.readers import list_shards
from pipeline.readers.tar import TarFiles
from pipeline.storage import open_store
from schemas.caption_row import CAPTION_ROW
from schemas.status import Status
from tests.selection.world import reusing, run_all, write_tar


@pytest.fixture
def looked(tmp_path):
    """A first look of 5 of 24 rows in two shards."""
    write_tar(tmp_path / "in", "a.tar")
    write_tar(tmp_path / "in", "b.tar")
    rows, asked = run_all(reusing(tmp_path, "look", limit=5))
    assert sorted({row for _, row, _ in asked}) == [0, 1, 2, 3, 4]
    assert {row["shard"] for row in rows} == {"a.tar"}
    return tmp_path


def test_the_real_job_asks_only_what_the_look_did_not(looked):
    rows, asked = run_all(reusing(looked, "real", "look"))
    assert len(rows) == 2 * 24
    assert {row["status"] for row in rows} == {"ok"}
    assert sorted(asked) == sorted(
        (shard, row, slot)
        for shard in ("a.tar", "b.tar")
        for row in range(12)
        for slot in ("long", "tags")
        if shard == "b.tar" or row >= 5
    )
    assert len({row["recipe"] for row in rows}) == 1


def test_rows_that_are_taken_over_are_not_read_without_conditions(looked, monkeypatch):
    read, members = TarFiles.read, []
    monkeypatch.setattr(TarFiles, "read", lambda self, member: members.append(member.name) or read(self, member))
    run_all(reusing(looked, "real", "look", limit=8))
    assert sorted(name for name in members if name.endswith(".png")) == ["005.png", "006.png", "007.png"]


def test_conditions_decide_about_rows_of_an_earlier_output_too(looked):
    where = {"width": {"min": 22}, "fields": {"rating": {"equals": "odd"}}}  # rows 2, 4, 6, ...
    rows, asked = run_all(reusing(looked, "real", "look", where=where))
    ok = sorted({(row["shard"], row["row"]) for row in rows if row["status"] == "ok"})
    assert ok == [(shard, row) for shard in ("a.tar", "b.tar") for row in range(2, 12, 2)]
    assert ("a.tar", 2, "long") not in asked
    assert ("a.tar", 4, "tags") not in asked
    assert len(asked) == 2 * (len(ok) - 2)


def test_of_an_image_only_the_rows_that_are_not_ok_are_asked(looked):
    store = open_store(str(looked / "look"))
    spoil(store, {(1, "tags"): "rejected", (3, "long"): "failed", (3, "tags"): "failed"})
    _, asked = run_all(reusing(looked, "real", "look", limit=5))
    assert sorted(asked) == [("a.tar", 1, "tags"), ("a.tar", 3, "long"), ("a.tar", 3, "tags")]


def spoil(store, changes):
    """Make some committed rows what they would be if they had not ended well."""
    path = committed_path("a.tar")
    data = store.get(path)
    footer, _ = read_footer(data)
    rows = from_parquet(data).to_pylist()
    for row in rows:
        status = changes.get((row["row"], row["slot"]))
        if status:
            text = row["caption"] if status == "rejected" else None
            row |= {"status": status, "reason": "loop", "caption": None, "rejected_text": text}
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    store.put(path, to_parquet(table, with_contents(footer, table)))


def test_what_was_skipped_or_failed_before_is_never_taken_over(looked):
    store = open_store(str(looked / "look"))
    job = reusing(looked, "look", limit=5)
    taken = read_taken_over([store], run_identity_of(job, check_job(job)[0]), list_shards(job.source)[0])
    assert sorted(taken.rows) == [0, 1, 2, 3, 4]
    assert all(row["status"] == "ok" for rows in taken.rows.values() for row in rows)


def test_several_outputs_are_taken_over_and_the_first_one_wins(looked):
    run_all(reusing(looked, "more", "look", limit=15))
    _, asked = run_all(reusing(looked, "real", "look", "more"))
    assert len(asked) == 2 * (24 - 15)


def test_another_recipe_is_refused_by_name(looked):
    job = reusing(looked, "real", "look")
    warmer = job.model_copy(update={"sampling": job.sampling.model_copy(update={"temperature": 0.1})})
    with pytest.raises(
        OutputMismatch,
        match=r"(?s)^reuse .*/look: its captions were made with recipe .*sampling\.temperature: 0\.6 in the output, "
        r"0\.1 in this run\nChange the config back, or leave this output out of reuse$",
    ):
        prepare_job(warmer)
    assert not (looked / "real").exists() or not (looked / "real" / "run.json").exists()


def test_a_changed_shard_is_refused_by_name(looked):
    write_tar(looked / "in", "a.tar", rows=11)
    with pytest.raises(OutputMismatch, match=r"reuse .*/look: 1 shards have changed since .*: a\.tar\. Restore"):
        prepare_job(reusing(looked, "real", "look"))


def test_an_output_over_other_shards_is_refused(looked):
    (looked / "in" / "a.tar").rename(looked / "in" / "c.tar")
    with pytest.raises(OutputMismatch, match=r"reuse .*/look: none of its 1 shards, such as a\.tar, is in the source"):
        prepare_job(reusing(looked, "real", "look"))


def test_the_own_output_and_what_is_no_output_are_refused(looked):
    with pytest.raises(ConfigError, match=r"reuse .*/look: is the output of this job"):
        prepare_job(reusing(looked, "look", "look", limit=5))
    with pytest.raises(ConfigError, match=r"/in: no run\.json, so not an output"):
        prepare_job(reusing(looked, "real", "in"))


def test_a_damaged_file_is_not_taken_over(looked):
    path = looked / "look" / committed_path("a.tar")
    footer, _ = read_footer(path.read_bytes())
    table = from_parquet(path.read_bytes())
    rows = [row | {"caption": row["caption"] and "another text"} for row in table.to_pylist()]
    path.write_bytes(to_parquet(pa.Table.from_pylist(rows, schema=CAPTION_ROW), footer))
    job = reusing(looked, "real", "look")
    prepared = prepare_job(job)
    with pytest.raises(StoreError, match=r"a\.tar\.parquet: .*; restore the file, or leave this output out of reuse"):
        read_taken_over(prepared.earlier, prepared.run_identity, prepared.tasks[0].shard)


def test_a_file_that_is_gone_meanwhile_ends_the_run(looked):
    prepared = prepare_job(reusing(looked, "real", "look"))
    (looked / "look" / committed_path("a.tar")).unlink()
    with pytest.raises(StoreError, match=r"a\.tar\.parquet: is gone, and its captions were to be taken over"):
        read_taken_over(prepared.earlier, prepared.run_identity, prepared.tasks[0].shard)
    assert prepare_job(reusing(looked, "real", "look")).tasks[0].earlier == ()


def test_another_selection_on_an_existing_output_is_refused_by_name(looked):
    with pytest.raises(
        OutputMismatch,
        match=r"(?s)/look: has another selection of images than this run\. They differ in\n  source\.limit: 5 in the "
        r"output, 6 in this run\n  source\.sample: not set in the output, 0\.5 in this run\n.*`reuse: \[.*/look\]`",
    ):
        prepare_job(reusing(looked, "look", limit=6, sample=0.5))
    with pytest.raises(OutputMismatch, match=r"source\.limit: 5 in the output, not set in this run"):
        prepare_job(reusing(looked, "look"))
    run_all(reusing(looked, "whole"))
    with pytest.raises(
        OutputMismatch, match=r"source\.where: not set in the output, \{'width': \{'min': 1\}\} in this"
    ):
        prepare_job(reusing(looked, "whole", where={"width": {"min": 1}}))


def test_a_limited_output_is_resumed_with_its_own_shards(looked):
    (looked / "in" / "0.tar").write_bytes((looked / "in" / "b.tar").read_bytes())  # sorted before the others
    prepared = prepare_job(reusing(looked, "look", limit=5))
    assert list(prepared.plan.shards) == ["a.tar"]
    assert prepared.plan.unplanned == ()
    assert prepared.tasks == []
    assert any("source.limit: the first 5 selected images are in 1 of 3 shards" in text for text in prepared.remarks)


def test_a_calibration_and_a_retry_take_nothing_over(looked):
    job = reusing(looked, "real", "look")
    trial = prepare_trial(job, 10, str(looked / "trial"))
    assert [task.earlier for task in trial.tasks] == [(), ()]
    assert prepare_retry(job, [Status.FAILED]).earlier == []
