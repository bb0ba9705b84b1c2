"""Retried rows: one replacement, success beats failure, and of two concurrent retries the second is refused."""

import contextlib
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.errors import PipelineError, StoreError
from pipeline.ledger.caption_table import captions_sha256, from_parquet, to_parquet
from pipeline.ledger.footer import read_footer
from pipeline.ledger.fragments import write_fragment
from pipeline.ledger.layout import committed_path
from pipeline.ledger.retry_rows import RetryRows, find_retry_rows, merge_rows, read_other_rows, replace_rows
from pipeline.storage import WriteResult
from schemas.caption_row import CAPTION_ROW
from schemas.status import Status
from tests.ledger.faults import Crash, Interposed, crash, dying, losing_answers
from tests.ledger.world import NUM_IMAGES, RUN, SHARD, caption_row, commit, committed, paths, stage, violations

FAILED = (Status.FAILED,)
BAD = [4, 9]
"""Rows of the world that fail."""


@pytest.fixture
def retry_rows(store):
    commit(store, [stage(store, range(NUM_IMAGES))])
    return find_retry_rows(store, RUN, SHARD, FAILED)


def well(row, slot, text="better"):
    return caption_row(row, slot, text) | {"status": "ok", "reason": None, "message": None, "caption": text}


def stage_well(store, rows=BAD, text="better"):
    table = pa.Table.from_pylist([well(row, slot, text) for row in rows for slot in RUN.slots], schema=CAPTION_ROW)
    return write_fragment(store, RUN, SHARD, NUM_IMAGES, table)


def rows_of(store):
    return {(row["row"], row["slot"]): row for row in from_parquet(committed(store)).to_pylist()}


def test_the_images_with_rows_of_the_statuses_are_found(store, retry_rows):
    assert retry_rows.rows == tuple(BAD)
    assert (retry_rows.num_images, retry_rows.attempts) == (NUM_IMAGES, 1)
    assert find_retry_rows(store, RUN, SHARD, (Status.REJECTED,)) is None


def test_a_retry_replaces_failed_rows_and_nothing_else(store, retry_rows):
    before = rows_of(store)
    result = replace_rows(store, RUN, SHARD, retry_rows, [stage_well(store)])
    assert (result.outcome, result.won) == (WriteResult.REPLACED, True)
    assert result.statuses == {"ok": 20, "rejected": 0, "failed": 0, "skipped": 0}
    after = rows_of(store)
    assert {at: row for at, row in after.items() if at[0] not in BAD} == {
        at: row for at, row in before.items() if at[0] not in BAD
    }
    assert {(row["caption"], row["attempts"]) for at, row in after.items() if at[0] in BAD} == {("better", 2)}
    assert violations(store) == []
    assert paths(store) == [f"captions/{SHARD.path}.parquet"]
    assert find_retry_rows(store, RUN, SHARD, FAILED) is None


def test_the_second_of_two_retries_changes_nothing_and_returns_exists(store, retry_rows):
    first, second = stage_well(store, text="first"), stage_well(store, text="second")
    data = store.get(second)
    assert replace_rows(store, RUN, SHARD, retry_rows, [first]).won
    standing = committed(store)
    store.put(second, data)
    result = replace_rows(store, RUN, SHARD, retry_rows, [second])
    assert (result.outcome, result.won) == (WriteResult.EXISTS, False)
    assert committed(store) == standing


def test_a_retry_that_is_overtaken_before_its_write_returns_exists(store, retry_rows):
    fragment = stage_well(store)

    def overtake(_, name):
        if name == "replace":
            replace_rows(store, RUN, SHARD, retry_rows, [stage_well(store, text="faster")])

    assert not replace_rows(Interposed(store, before=overtake), RUN, SHARD, retry_rows, [fragment]).won
    assert {row["caption"] for at, row in rows_of(store).items() if at[0] in BAD} == {"faster"}


def test_a_retry_whose_fragments_a_faster_one_removed_returns_exists(store, retry_rows):
    fragment = stage_well(store)
    calls = []

    def overtake(_, name):
        calls.append(name)
        if name == "get_versioned" and calls.count(name) == 1:
            replace_rows(store, RUN, SHARD, retry_rows, [stage_well(store, text="faster")])

    assert not replace_rows(Interposed(store, after=overtake), RUN, SHARD, retry_rows, [fragment]).won


@pytest.mark.parametrize("num", range(1, 8))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_retry_that_dies_leaves_the_old_file_or_the_new_one(store, retry_rows, num, when):
    old = committed(store)
    fragment, attempt = stage_well(store), "a" * 32
    with contextlib.suppress(Crash):
        replace_rows(dying(store, num, when, crash), RUN, SHARD, retry_rows, [fragment], attempt)
    assert violations(store) == []
    replaced = committed(store) != old
    result = replace_rows(store, RUN, SHARD, retry_rows, [fragment], attempt)
    assert result.outcome is (WriteResult.OURS if replaced else WriteResult.REPLACED)
    assert find_retry_rows(store, RUN, SHARD, FAILED) is None


def test_a_replacement_with_a_lost_answer_is_recognised_as_ours(store, retry_rows):
    lossy = losing_answers(store, TimeoutError(), name="replace")
    assert replace_rows(lossy, RUN, SHARD, retry_rows, [stage_well(store)]).outcome is WriteResult.OURS


def test_a_retry_that_does_not_cover_all_images_is_refused(store, retry_rows):
    with pytest.raises(PipelineError, match="1 images of the retry have no new captions, such as row 9;"):
        replace_rows(store, RUN, SHARD, retry_rows, [stage_well(store, rows=[4])])


def test_a_shard_that_is_gone_is_not_made_anew(store, retry_rows):
    store.delete(paths(store))
    with pytest.raises((StoreError, FileNotFoundError)):
        replace_rows(store, RUN, SHARD, retry_rows, [stage_well(store)])


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("failed", "ok", "new"),
        ("failed", "rejected", "new"),
        ("failed", "failed", "new"),
        ("rejected", "ok", "new"),
        ("rejected", "failed", "old"),
        ("ok", "failed", "old"),
        ("ok", "ok", "old"),
        ("failed", "skipped", "old"),
    ],
)
def test_success_beats_failure_and_attempts_add_up(old, new, kept):
    def table(status, text):
        made = caption_row(0, "long", text) | {"status": status, "prompt": text, "attempts": 2}
        return pa.Table.from_pylist([made], schema=CAPTION_ROW)

    retried = frozenset() if old == "ok" else frozenset({0})
    retry_rows = RetryRows(version="v", num_images=1, rows=(0,), identities=retried, attempts=2)
    [row] = merge_rows(table(old, "old"), table(new, "new"), RUN.slots, retry_rows).to_pylist()
    assert row["prompt"] == kept
    assert row["attempts"] == (2 if old == "ok" else 4)
    [stale] = merge_rows(
        table(old, "old"), table(new, "new"), RUN.slots, replace(retry_rows, keeps_better=False)
    ).to_pylist()
    assert stale["prompt"] == ("old" if old == "ok" else "new")


def test_the_other_rows_of_a_retry_are_those_that_are_not_asked_again(store, retry_rows):
    one_slot = replace(retry_rows, identities=frozenset({2 * BAD[0]}))
    others = read_other_rows(store, RUN, SHARD, one_slot).rows
    assert {(row, caption["slot"]) for row, captions in others.items() for caption in captions} == {
        (BAD[0], "booru"),
        (BAD[1], "long"),
        (BAD[1], "booru"),
    }
    assert read_other_rows(store, RUN, SHARD, retry_rows).rows == {}


def test_a_retry_of_a_damaged_file_is_refused_and_keeps_the_old_digest(store):
    commit(store, [stage(store, range(NUM_IMAGES))])
    footer, _ = read_footer(committed(store))
    table = from_parquet(committed(store))
    at = table.column_names.index("caption")
    other = pa.array([None if text is None else "another" for text in table["caption"].to_pylist()])
    other = table.set_column(at, CAPTION_ROW.field("caption"), other)
    store.put(committed_path(SHARD.path), to_parquet(other, footer))
    damaged = committed(store)
    with pytest.raises(StoreError, match=r"digest of the captions is .*; restore the file, or caption"):
        find_retry_rows(store, RUN, SHARD, FAILED)
    assert committed(store) == damaged


def test_a_retry_gives_a_file_of_an_earlier_version_a_digest(store):
    commit(store, [stage(store, range(NUM_IMAGES))])
    footer, _ = read_footer(committed(store))
    old = replace(footer, captions_sha256=None)
    store.put(committed_path(SHARD.path), to_parquet(from_parquet(committed(store)), old))
    assert replace_rows(store, RUN, SHARD, find_retry_rows(store, RUN, SHARD, FAILED), [stage_well(store)]).won
    footer, _ = read_footer(committed(store))
    assert footer.captions_sha256 == captions_sha256(from_parquet(committed(store)), RUN.slots)
    assert violations(store) == []
