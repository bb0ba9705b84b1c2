"""A selection that changes: newly selected rows are asked, captions that exist stay, and all else is byte-identical."""

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from jobs.output import job_of_output
from pipeline.errors import ConfigError, OutputMismatch, PlanExtended, StoreError
from pipeline.flow import prepared_job
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import prepare_job, prepare_retry
from pipeline.ledger.footer import read_footer
from pipeline.ledger.layout import applied_path, generation_path
from pipeline.ledger.parts_record import Part
from pipeline.ledger.shard_plan import ListedOutput, read_plan
from pipeline.storage import open_store
from schemas.status import Status
from tests.ledger.faults import Crash, Interposed
from tests.selection import test_duplicates
from tests.selection.runs import committed_bytes, images_with, rows_of, run_job, run_tasks
from tests.selection.test_duplicates import dying_store, invoke, verified, write_shard
from tests.selection.world import SLOTS, job_of, write_tar

NARROW = {"where": {"fields": {"score": {"min": 9}}}}
WIDE = {"where": {"fields": {"score": {"min": 7}}}}
RATED = {"where": {"fields": {"score": {"min": 7}, "rating": {"equals": "safe"}}}}


@pytest.fixture
def folder(tmp_path):
    """Three tars of 12, 8 and 10 rows whose scores are their numbers (3 and 4 have none), narrowly captioned."""
    for name, rows in (("a.tar", 12), ("b.tar", 8), ("c.tar", 10)):
        write_tar(tmp_path / "in", name, rows=rows)
    rows, _ = run_job(job(tmp_path, **NARROW))
    assert images_with(rows, "ok") == [("a.tar", 9), ("a.tar", 10), ("a.tar", 11), ("c.tar", 9)]
    return tmp_path


def job(folder, output="out", **source):
    return job_of(folder / "in", **source).model_copy(update={"output": str(folder / output)})


def images(asked):
    return sorted({(shard, row) for shard, row, _ in asked})


NEWLY = [("a.tar", 7), ("a.tar", 8), ("b.tar", 7), ("c.tar", 7), ("c.tar", 8)]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_loosened_filter_asks_only_the_newly_selected_rows(folder, seed):
    before = rows_of(str(folder / "out"))
    rows, asked = run_job(job(folder, **WIDE), extend=True, seed=seed)
    assert images(asked) == NEWLY
    assert len(asked) == len(NEWLY) * len(SLOTS)
    for identity, row in rows.items():
        if identity[:2] not in NEWLY:
            assert row == before[identity]
    verified(folder)


def test_a_listing_from_before_the_change_does_not_count(folder, monkeypatch):
    monkeypatch.setattr(prepared_job, "list_output", lambda store: ListedOutput(frozenset(), frozenset(), {}))
    prepared = prepare_job(job(folder, **WIDE), Extension())
    assert prepared.remaining.committed == {"a.tar", "b.tar", "c.tar"}


def test_the_rows_are_those_of_a_job_that_selected_them_from_the_start(folder):
    rows, _ = run_job(job(folder, **WIDE), extend=True)
    fresh, _ = run_job(job(folder, "fresh", **WIDE))
    assert {key: row for key, row in rows.items() if row["status"] == "ok"} == {
        key: row for key, row in fresh.items() if row["status"] == "ok"
    }


def test_files_without_a_newly_selected_row_stay_as_they_are(folder):
    before = committed_bytes(str(folder / "out"))
    _, asked = run_job(job(folder, where={"fields": {"score": {"min": 8}}}), extend=True)
    assert images(asked) == [("a.tar", 8), ("c.tar", 8)]
    after = committed_bytes(str(folder / "out"))
    assert [path for path in before if before[path] != after[path]] == ["a.tar.parquet", "c.tar.parquet"]
    assert not (folder / "out" / "staging").exists()
    footer, _ = read_footer(after["a.tar.parquet"])
    assert footer.statuses == {"ok": 8, "rejected": 0, "failed": 0, "skipped": 16}
    verified(folder)


def test_the_change_is_a_generation_of_the_plan_and_a_later_run_reads_no_committed_file(folder, monkeypatch):
    run_job(job(folder, **WIDE), extend=True)
    store = open_store(str(folder / "out"))
    [first, second] = read_plan(store).generations
    assert (first.change, second.shards, dict(second.change.selection)) == (None, (), WIDE)
    assert second.is_applied
    assert json.loads((folder / "out" / "run.json").read_text())["selection"] == NARROW
    read = []
    get = type(store).get_versioned
    monkeypatch.setattr(type(store), "get_versioned", lambda self, path: read.append(path) or get(self, path))
    for extension in (None, Extension()):
        prepared = prepare_job(job(folder, **WIDE), extension)
        assert (prepared.tasks, prepared.unapplied, read) == ([], None, [])
    assert len(read_plan(store).generations) == 2


def test_without_extend_and_with_the_old_selection_a_run_is_refused(folder):
    with pytest.raises(OutputMismatch, match=r"score\.min: 9 in the output, 7 in this run\n.*caption --extend"):
        prepare_job(job(folder, **WIDE))
    run_job(job(folder, **WIDE), extend=True)
    with pytest.raises(OutputMismatch, match=r"score\.min: 7 in the output, 9 in this run"):
        prepare_job(job(folder, **NARROW))


def test_a_tightened_filter_keeps_what_exists_and_holds_for_new_shards(folder):
    run_job(job(folder, **WIDE), extend=True)
    before = committed_bytes(str(folder / "out"))
    write_tar(folder / "in", "d.tar", rows=12)
    rows, asked = run_job(job(folder, **NARROW), extend=True)
    assert images(asked) == [("d.tar", 9), ("d.tar", 10), ("d.tar", 11)]
    assert {path: data for path, data in committed_bytes(str(folder / "out")).items() if path in before} == before
    assert rows["a.tar", 7, "long"]["status"] == "ok"
    verified(folder)


def test_newly_selected_rows_are_captioned_by_a_run_of_the_whole_plan(folder):
    with pytest.raises(ConfigError, match=r"--part 1/2 --extend with another selection: .*; run the job with --extend"):
        prepare_job(job(folder, **WIDE), Extension(), Part(1, 2))
    assert len(read_plan(open_store(str(folder / "out"))).generations) == 1
    run_tasks(prepare_job(job(folder, **WIDE), Extension()), stop_after=1)
    with pytest.raises(ConfigError, match=r"--part 1/2, while rows that generation 1 of the plan newly selects"):
        prepare_job(job(folder, **WIDE), part=Part(1, 2))
    run_job(job(folder, **WIDE))
    parts = [prepare_job(job(folder, **WIDE), part=Part(number, 2)) for number in (1, 2)]
    assert [part.tasks for part in parts] == [[], []]
    assert sum(len(part.remaining.committed) for part in parts) == 3
    verified(folder)


def test_a_filter_on_another_field_is_a_change_like_any_other(folder):
    rows, asked = run_job(job(folder, **RATED), extend=True)
    assert images(asked) == [("a.tar", 7), ("b.tar", 7), ("c.tar", 7)]
    assert ("a.tar", 10) in images_with(rows, "ok")  # odd, and captioned before
    verified(folder)


def test_new_shards_and_a_new_filter_are_one_generation(folder):
    write_tar(folder / "in", "d.tar", rows=9)
    prepared = prepare_job(job(folder, **WIDE), Extension())
    assert prepared.remarks[-1] == (
        "source: the selection of this output is now that of this run: generation 1 of its plan, with 1 new shards. "
        "Rows that it newly selects are captioned; captions that exist stay"
    )
    assert images(run_tasks(prepared)) == [*NEWLY, ("d.tar", 7), ("d.tar", 8)]
    verified(folder)


def test_a_larger_sample_asks_the_rest_of_it(tmp_path):
    write_tar(tmp_path / "in", "a.tar", rows=40)
    first, _ = run_job(job(tmp_path, sample=0.2))
    prepared = prepare_job(job(tmp_path, sample=0.6), Extension())
    [task] = prepared.tasks
    asked = images(run_tasks(prepared))
    assert len(task.retry_rows.rows) == len(asked)  # the others are not even read
    rows = rows_of(str(tmp_path / "out"))
    assert sorted({*images_with(first, "ok"), *asked}) == images_with(rows, "ok")
    fresh, _ = run_job(job(tmp_path, "fresh", sample=0.6))
    assert images_with(rows, "ok") == images_with(fresh, "ok")
    verified(tmp_path)


@pytest.mark.parametrize("limit", [13, 20, 25, None])
def test_a_larger_limit_asks_the_rows_up_to_it(folder, limit):
    run_job(job(folder, "few", limit=5))
    larger = {} if limit is None else {"limit": limit}
    rows, asked = run_job(job(folder, "few", **larger), extend=True)
    assert len(images_with(rows, "ok")) == (limit or 30)
    assert len(asked) == ((limit or 30) - 5) * len(SLOTS)
    fresh, _ = run_job(job(folder, "fresh", **larger))
    assert images_with(rows, "ok") == images_with(fresh, "ok")
    verified(folder, "few")
    assert prepare_job(job(folder, "few", **larger)).tasks == []


def test_shards_that_a_source_has_gained_come_behind_a_limit(folder):
    run_job(job(folder, "few", limit=5))
    write_tar(folder / "in", "0.tar", rows=6)
    rows, _ = run_job(job(folder, "few", limit=14), extend=True)
    assert images_with(rows, "ok") == [("0.tar", 0), ("0.tar", 1), *[("a.tar", row) for row in range(12)]]
    verified(folder, "few")


def test_what_an_output_cannot_follow_is_refused(folder):
    run_job(job(folder, "few", limit=5))
    with pytest.raises(ConfigError, match=r"source\.limit: 5 in the output, 3 in this run; allowed: a larger limit or"):
        prepare_job(job(folder, "few", limit=3), Extension())
    with pytest.raises(ConfigError, match=r"source\.limit: not set in the output, 3 in this run"):
        prepare_job(job(folder, limit=3, **NARROW), Extension())
    with pytest.raises(ConfigError, match=r"source.limit: 5: .* is not extended, unless --extend comes with a larger"):
        prepare_job(job(folder, "few", limit=5), Extension())
    with pytest.raises(ConfigError, match=r"source.limit: 9: .* is not extended"):
        prepare_job(job(folder, "few", limit=9), Extension(60))  # --follow
    duplicates = {"duplicates": {"index": str(folder / "index")}}
    with pytest.raises(ConfigError, match=r"source\.duplicates: not set in .*; allowed: the same duplicates"):
        prepare_job(job(folder, **NARROW, **duplicates), Extension())
    assert len(read_plan(open_store(str(folder / "few"))).generations) == 1


def test_a_second_change_waits_until_the_first_one_is_done(folder):
    run_tasks(prepare_job(job(folder, **WIDE), Extension()), stop_after=1)
    wider = {"where": {"fields": {"score": {"min": 5}}}}
    with pytest.raises(ConfigError, match=r"generation 1 of the plan newly selects are not all captioned yet"):
        prepare_job(job(folder, **wider), Extension())
    run_job(job(folder, **WIDE))
    rows, _ = run_job(job(folder, **wider), extend=True)
    assert len(images_with(rows, "ok")) == 7 + 3 + 5
    verified(folder)


def test_shards_that_were_not_committed_yet_are_captioned_by_the_new_selection(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / "in", name)
    run_tasks(prepare_job(job(tmp_path, **NARROW)), stop_after=1)
    rows, asked = run_job(job(tmp_path, **WIDE), extend=True)
    assert images(asked) == [("a.tar", 7), ("a.tar", 8), *[("b.tar", row) for row in range(7, 12)]]
    assert len(images_with(rows, "ok")) == 10
    verified(tmp_path)


def test_rows_of_an_earlier_output_are_taken_over(folder):
    run_job(job(folder, "whole"))
    wide = job(folder, **WIDE).model_copy(update={"reuse": (str(folder / "whole"),)})
    rows, asked = run_job(wide, extend=True)
    assert asked == []
    assert set(NEWLY) < set(images_with(rows, "ok"))
    verified(folder)


def test_a_retry_takes_the_selection_in_force(folder):
    run_tasks(prepare_job(job(folder, **WIDE), Extension()), bad={("a.tar", 7)})
    stored = job_of_output(str(folder / "out"), None, ["model=standin"])
    assert stored.source.selection() == WIDE
    run_tasks(prepare_retry(stored, [Status.FAILED]))
    assert ("a.tar", 7) in images_with(rows_of(str(folder / "out")), "ok")
    verified(folder)


def test_a_row_that_the_selection_no_longer_selects_can_be_retried(folder):
    run_tasks(prepare_job(job(folder, **WIDE), Extension()), bad={("a.tar", 7)})
    run_job(job(folder, **NARROW), extend=True)
    run_tasks(prepare_retry(job(folder, **NARROW), [Status.FAILED]))
    assert ("a.tar", 7) in images_with(rows_of(str(folder / "out")), "ok")


# Two at once, and kills.


def test_of_two_changes_at_once_one_wins_and_the_other_is_told(folder, monkeypatch):
    barrier = threading.Barrier(2)

    def meet(_, name):
        if name == "create":
            barrier.wait(10)

    monkeypatch.setattr(prepared_job, "open_store", lambda url: Interposed(open_store(url), before=meet))
    monkeypatch.setattr(prepared_job, "probe", lambda store: None)

    def change(source):
        try:
            prepare_job(job(folder, **source), Extension())
        except PlanExtended as err:
            return str(err)
        return None

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(change, [WIDE, RATED]))
    [message] = filter(None, results)
    assert f"another run has just added generation 1 ({generation_path(1)}) to the plan, another selection" in message
    [generation] = read_plan(open_store(str(folder / "out"))).generations[1:]
    assert dict(generation.change.selection) == (WIDE if results[0] is None else RATED)


def test_of_two_runs_over_a_change_each_shard_is_replaced_by_one(folder):
    first = prepare_job(job(folder, **WIDE), Extension())
    second = prepare_job(job(folder, **WIDE))
    assert len(first.tasks) == len(second.tasks) == 3
    run_tasks(first)
    before = committed_bytes(str(folder / "out"))
    run_tasks(second)
    assert committed_bytes(str(folder / "out")) == before
    verified(folder)


def test_a_change_killed_at_any_call_to_the_store_is_finished_by_the_next_run(tmp_path, monkeypatch):
    write_tar(tmp_path / "in", "a.tar", rows=10)
    for num in range(1, 200):
        output = f"out-{num}"
        run_job(job(tmp_path, output, **NARROW))
        stores = []
        with monkeypatch.context() as patch:
            patch.setattr(prepared_job, "open_store", lambda url, num=num, made=stores: dying_store(url, num, made))
            with contextlib.suppress(Crash):
                run_tasks(prepare_job(job(tmp_path, output, **WIDE), Extension()))
        rows, _ = run_job(job(tmp_path, output, **WIDE), extend=True)
        assert images_with(rows, "ok") == [("a.tar", row) for row in (7, 8, 9)]
        assert (tmp_path / output / applied_path(1)).exists()
        assert prepare_job(job(tmp_path, output, **WIDE)).tasks == []
        if max(store.num_calls for store in stores) < num:
            break
    assert num > 15


def test_after_a_shard_that_another_run_replaced_meanwhile_the_change_is_not_yet_done(folder):
    prepared = prepare_job(job(folder, **WIDE), Extension())
    run_tasks(replace(prepared, tasks=[task for task in prepared.tasks if task.shard.path == "a.tar"]), stop_after=1)
    store = open_store(str(folder / "out"))
    before = committed_bytes(str(folder / "out"))
    run_tasks(prepared)
    assert committed_bytes(str(folder / "out"))["a.tar.parquet"] == before["a.tar.parquet"]
    assert not read_plan(store).generations[1].is_applied
    assert run_tasks(prepare_job(job(folder, **WIDE))) == []
    assert read_plan(store).generations[1].is_applied
    verified(folder)


# What the verbs say.


def test_verify_and_status_say_that_rows_are_not_asked_yet(folder):
    assert "selection " not in invoke("status", folder / "out")
    prepare_job(job(folder, **WIDE), Extension())
    assert "selection   changed by `caption --extend`; not all rows that it newly" in invoke("status", folder / "out")
    message = invoke("verify", folder / "out", code=1)
    assert "selection: a.tar: 4: (7, long)" in message
    run_job(job(folder, **WIDE))
    verified(folder)


def test_a_damaged_selection_is_refused_by_name(folder):
    run_job(job(folder, **WIDE), extend=True)
    record = folder / "out" / "run.json"
    stored = json.loads(record.read_text())
    record.write_text(json.dumps({**stored, "selection": {"where": {"fields": 3}}}))
    with pytest.raises(StoreError, match=r"its stored selection is damaged \(.*where"):
        prepare_job(job(folder, **WIDE))


# With duplicates.


def test_a_newly_selected_row_follows_a_leader_that_exists(tmp_path):
    write_shard(tmp_path / "in", "a.tar", [0, 1, 0, 2, 1], score=[5, 9, 9, 5, 5])
    write_shard(tmp_path / "in", "b.tar", [2, 3, 2], score=[5, 9, 5])
    test_duplicates.index(tmp_path, metadata_fields=["score"])
    narrow = test_duplicates.job(tmp_path, **NARROW)
    rows, _ = run_job(narrow)
    assert images_with(rows, "ok") == [("a.tar", 1), ("a.tar", 2), ("b.tar", 1)]
    wide = test_duplicates.job(tmp_path, where={"fields": {"score": {"min": 5}}})
    rows, asked = run_job(wide, extend=True)
    assert images(asked) == [("a.tar", 3)]
    assert test_duplicates.leaders_in(rows) == {
        ("a.tar", 0): "a.tar#2", ("a.tar", 4): "a.tar#1", ("b.tar", 0): "a.tar#3", ("b.tar", 2): "a.tar#3"
    }  # fmt: skip
    verified(tmp_path)


def test_with_duplicates_a_change_waits_until_all_shards_are_committed(tmp_path):
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / "in", name, [0, 1], score=[5, 9])
    test_duplicates.index(tmp_path, metadata_fields=["score"])
    run_tasks(prepare_job(test_duplicates.job(tmp_path, **NARROW)), stop_after=1)
    with pytest.raises(ConfigError, match=r"while shards are not committed yet, .*; finish the job with the old"):
        prepare_job(test_duplicates.job(tmp_path, **WIDE), Extension())
