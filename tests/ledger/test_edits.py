"""Edits by people: one replacement of a shard's file, the model's text beside the new one, and nobody's edit lost."""

import contextlib
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.errors import OutputMismatch, PipelineError, StoreError
from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.edits import TRIES, Edit, Mistake, apply_edits, find_mistakes
from pipeline.ledger.footer import read_footer
from pipeline.ledger.fragments import write_fragment
from pipeline.ledger.layout import committed_path
from pipeline.ledger.retry_rows import find_retry_rows, replace_rows
from pipeline.ledger.verification import ViolationKind
from schemas.caption_row import CAPTION_ROW
from schemas.edit import EditStatus
from schemas.status import Status
from tests.ledger.faults import Crash, Interposed, crash, dying, losing_answers, sigkill
from tests.ledger.test_kill import kill_at_line
from tests.ledger.test_retry_rows import stage_well
from tests.ledger.world import (
    NUM_IMAGES,
    OTHER,
    RUN,
    SHARD,
    caption_row,
    commit,
    committed,
    paths,
    rows_table,
    stage,
    violations,
)
from tests.processes import was_killed

AT, LATER = "2026-11-28T09:00:00+00:00", "2026-11-28T10:00:00+00:00"
OK_ROW, FAILED_ROW = 2, 4
BOTH = (Status.FAILED, Status.REJECTED)


def edit(row=OK_ROW, slot="long", caption="a hand-written text", editor="ada", line=2):
    return Edit(line=line, shard=SHARD.path, row=row, slot=slot, editor=editor, status=EditStatus.OK, caption=caption)


def rejection(row=OK_ROW, slot="long", editor="ada", line=2):
    return replace(edit(row, slot, editor=editor, line=line), status=EditStatus.REJECTED, caption=None)


@pytest.fixture
def output(store):
    commit(store, [stage(store, range(NUM_IMAGES), text="the model's text")])
    return store


def apply(store, *edits, time=AT):
    return apply_edits(store, RUN, SHARD, edits, time)


def rows_of(store):
    return {(row["row"], row["slot"]): row for row in from_parquet(committed(store)).to_pylist()}


def test_an_edit_replaces_one_text_and_keeps_the_model_s(output):
    before = rows_of(output)
    assert apply(output, edit()) == 1
    after = rows_of(output)
    assert {at for at in after if after[at] != before[at]} == {(OK_ROW, "long")}
    assert after[OK_ROW, "long"] == before[OK_ROW, "long"] | {
        "caption": "a hand-written text",
        "model_caption": "the model's text",
        "edited_by": "ada",
        "edited_at": AT,
        "words": 3,
    }
    assert violations(output) == []
    assert paths(output) == [f"captions/{SHARD.path}.parquet"]
    assert read_footer(committed(output))[0].statuses == {"ok": 16, "rejected": 0, "failed": 4, "skipped": 0}


def test_counts_of_the_model_s_text_go_with_it(store):
    rows = rows_table(range(NUM_IMAGES), text="the model's text").to_pylist()
    counted = pa.Table.from_pylist([{**row, "given": 3, "mentioned": 2} for row in rows], schema=CAPTION_ROW)
    commit(store, [write_fragment(store, RUN, SHARD, NUM_IMAGES, counted)])
    assert apply(store, edit(1), rejection(3)) == 2
    after = rows_of(store)
    assert [(after[at, "long"]["given"], after[at, "long"]["mentioned"]) for at in (1, 2, 3)] == [
        (None, None),
        (3, 2),
        (3, 2),
    ]


def test_all_edits_of_a_shard_are_one_write(output):
    calls = []
    recording = Interposed(output, before=lambda _, name: calls.append(name))
    assert apply(recording, edit(1), edit(2), edit(2, "booru"), rejection(3), edit(FAILED_ROW)) == 5
    assert calls == ["get_versioned", "replace"]
    assert violations(output) == []
    assert read_footer(committed(output))[0].statuses == {"ok": 16, "rejected": 1, "failed": 3, "skipped": 0}


def test_the_same_edits_twice_change_nothing(output):
    edits = (edit(1), rejection(3), edit(FAILED_ROW))
    assert apply(output, *edits) == 3
    before = committed(output)
    assert apply(output, *edits, time=LATER) == 0
    assert committed(output) == before
    assert apply(output, *edits, edit(5), time=LATER) == 1
    assert rows_of(output)[1, "long"]["edited_at"] == AT


def test_a_second_edit_keeps_the_text_of_the_model_and_not_of_the_first_editor(output):
    apply(output, edit(caption="first"))
    apply(output, edit(caption="second", editor="bob"), time=LATER)
    row = rows_of(output)[OK_ROW, "long"]
    assert (row["caption"], row["model_caption"]) == ("second", "the model's text")
    assert (row["edited_by"], row["edited_at"]) == ("bob", LATER)


def test_a_rejected_text_is_kept_and_can_be_accepted_again(output):
    apply(output, rejection())
    row = rows_of(output)[OK_ROW, "long"]
    assert (row["status"], row["reason"], row["caption"]) == ("rejected", "editor", None)
    assert (row["rejected_text"], row["model_caption"]) == ("the model's text", "the model's text")
    assert violations(output) == []
    apply(output, edit(caption=row["rejected_text"], editor="bob"))
    row = rows_of(output)[OK_ROW, "long"]
    assert (row["status"], row["reason"], row["caption"]) == ("ok", None, "the model's text")
    assert (row["model_caption"], row["edited_by"]) == ("the model's text", "bob")


def test_the_rejection_of_an_edited_text_keeps_both_texts(output):
    apply(output, edit(caption="first"))
    apply(output, rejection(editor="bob"))
    row = rows_of(output)[OK_ROW, "long"]
    assert (row["rejected_text"], row["model_caption"]) == ("first", "the model's text")


def test_a_failed_row_can_be_given_a_text_but_not_be_rejected(output):
    assert find_mistakes(output, RUN, SHARD, [rejection(FAILED_ROW, line=7)]) == [
        Mistake(7, f"row {FAILED_ROW}, slot long: is failed and has no text to reject; leave the edit out")
    ]
    apply(output, edit(FAILED_ROW))
    row = rows_of(output)[FAILED_ROW, "long"]
    assert (row["status"], row["reason"], row["message"], row["model_caption"]) == ("ok", None, None, None)
    assert violations(output) == []


def test_a_failed_row_whose_image_was_never_read_can_be_given_a_text(output):
    """It has no hash, and verify does not take that for the hash of another image."""
    footer, _ = read_footer(committed(output))
    table = from_parquet(committed(output))
    rows = table.to_pylist()
    for row in rows:
        row["image_sha256"] = None if row["row"] == FAILED_ROW else row["image_sha256"]
    table = pa.Table.from_pylist(rows, schema=table.schema)
    output.put(committed_path(SHARD.path), to_parquet(table, with_contents(footer, table)))
    assert violations(output) == []
    apply(output, edit(FAILED_ROW))
    assert violations(output) == []


def test_mistakes_are_named_with_their_lines_and_nothing_is_written(output):
    before = committed(output)
    edits = [edit(line=2), edit(NUM_IMAGES, line=3), edit(slot="short", line=4)]
    assert find_mistakes(output, RUN, SHARD, edits) == [
        Mistake(3, f"row {NUM_IMAGES}: shard {SHARD.path} has {NUM_IMAGES} images; allowed: 0..{NUM_IMAGES - 1}"),
        Mistake(4, "slot 'short': not in this output; allowed: long, booru"),
    ]
    [missing] = find_mistakes(output, RUN, OTHER, [replace(edit(line=9), shard=OTHER.path)])
    assert missing == Mistake(9, f"shard {OTHER.path} is planned and not committed yet; caption it first")
    with pytest.raises(PipelineError, match=r"line 3: row 10: .*; its shard was not changed"):
        apply(output, *edits)
    assert committed(output) == before


def test_a_file_of_another_recipe_is_not_edited(output):
    with pytest.raises(OutputMismatch, match="recipe is 'recipe-1', expected 'recipe-2'"):
        apply_edits(output, replace(RUN, recipe="recipe-2"), SHARD, [edit()], AT)


def test_a_skipped_row_has_no_edit(store):
    skipped = {"status": "skipped", "reason": "filtered", "message": "source.where.width", "caption": None}
    rows = [caption_row(row, slot, "") | skipped for row in range(NUM_IMAGES) for slot in RUN.slots]
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    commit(store, [write_fragment(store, RUN, SHARD, NUM_IMAGES, table)])
    [mistake] = find_mistakes(store, RUN, SHARD, [edit()])
    assert mistake.message == (
        "row 2, slot long: is skipped (source.where.width); only rows that the selection selects have edits"
    )


def test_a_damaged_file_is_refused_and_keeps_its_digest(output):
    footer, _ = read_footer(committed(output))
    table = from_parquet(committed(output))
    other = pa.array([None if text is None else "another" for text in table["caption"].to_pylist()])
    at = table.column_names.index("caption")
    output.put(
        committed_path(SHARD.path), to_parquet(table.set_column(at, CAPTION_ROW.field("caption"), other), footer)
    )
    for act in (find_mistakes, lambda *words: apply_edits(*words, AT)):
        with pytest.raises(StoreError, match=r"digest of the captions is .*; restore the file, or caption"):
            act(output, RUN, SHARD, [edit()])


# Several writers.


def test_two_editors_at_once_lose_nothing(output):
    def overtake(num, name):
        if name == "replace" and num == 2:
            apply(output, edit(5, editor="bob"))

    assert apply(Interposed(output, before=overtake), edit(1)) == 1
    rows = rows_of(output)
    assert (rows[1, "long"]["edited_by"], rows[5, "long"]["edited_by"]) == ("ada", "bob")


def test_a_file_that_is_replaced_again_and_again_ends_with_a_message(output):
    texts = iter(range(10 * TRIES))

    def overtake(_, name):
        if name == "replace":
            apply(output, edit(5, caption=f"text {next(texts)}"))

    with pytest.raises(StoreError, match=rf"replaced by other processes {TRIES} times while its edits"):
        apply(Interposed(output, before=overtake), edit(1))


def test_a_retry_does_not_touch_an_edit(output):
    retry_rows = find_retry_rows(output, RUN, SHARD, BOTH)
    apply(output, rejection(1), edit(FAILED_ROW))
    result = replace_rows(output, RUN, SHARD, retry_rows, [stage_well(output)])
    assert not result.won  # the edit was faster: its file is not the one that the retry read
    again = find_retry_rows(output, RUN, SHARD, BOTH)
    assert again.rows == (4, 9)  # row 4 because of its other slot
    assert replace_rows(output, RUN, SHARD, again, [stage_well(output)]).won
    rows = rows_of(output)
    assert (rows[1, "long"]["status"], rows[1, "long"]["edited_by"]) == ("rejected", "ada")
    assert rows[FAILED_ROW, "long"]["caption"] == "a hand-written text"
    assert rows[FAILED_ROW, "booru"]["caption"] == rows[9, "long"]["caption"] == "better"
    assert find_retry_rows(output, RUN, SHARD, BOTH) is None
    assert violations(output) == []


def test_a_retry_replaces_an_edit_if_it_is_told_to(output):
    apply(output, rejection(1))
    retry_rows = find_retry_rows(output, RUN, SHARD, (Status.REJECTED,), edited=True)
    assert retry_rows.rows == (1,)
    assert replace_rows(output, RUN, SHARD, retry_rows, [stage_well(output, rows=[1])]).won
    row = rows_of(output)[1, "long"]
    assert (row["caption"], row["edited_by"], row["edited_at"], row["model_caption"]) == ("better", None, None, None)
    assert violations(output) == []


# What a process that is killed leaves.


@pytest.mark.parametrize("num", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_amend_that_dies_leaves_the_old_file_or_the_new_one(output, num, when):
    old = committed(output)
    with contextlib.suppress(Crash):
        apply(dying(output, num, when, crash), edit(), rejection(5))
    assert violations(output) == []
    replaced = committed(output) != old
    assert replaced is ((num, when) == (2, "after"))
    assert apply(output, edit(), rejection(5)) == (0 if replaced else 2)
    assert rows_of(output)[OK_ROW, "long"]["edited_by"] == "ada"


def test_an_edit_with_a_lost_answer_is_recognised(output):
    assert apply(losing_answers(output, TimeoutError(), name="replace"), edit()) == 1
    assert rows_of(output)[OK_ROW, "long"]["edited_by"] == "ada"


def amend_and_die_at_line(url, num):
    import sys

    from pipeline.storage import open_store

    assert sigkill
    kill_at_line(num)
    apply(open_store(url), edit(), rejection(5))
    sys.settrace(None)


@pytest.mark.long
def test_an_amend_killed_at_any_line_is_repeated_safely(tmp_path):
    from pipeline.storage import open_store

    num, outcomes = 1, set()
    while True:
        store = open_store(f"{tmp_path}/{num}")
        commit(store, [stage(store, range(NUM_IMAGES), text="the model's text")])
        killed = was_killed(amend_and_die_at_line, store.url, num)
        assert violations(store) == []
        changed = apply(store, edit(), rejection(5))
        assert changed in (0, 2)
        outcomes.add((killed, changed))
        assert violations(store) == []
        if not killed:
            break
        num += 23
    assert outcomes == {(True, 2), (True, 0), (False, 0)}


# What verify finds.


@pytest.mark.parametrize(
    "change",
    [
        {"edited_at": None},
        {"edited_by": None},
        {"edited_by": None, "edited_at": None},
        {"edited_by": None, "edited_at": None, "model_caption": None, "status": "rejected", "reason": "editor"},
    ],
)
def test_an_edit_without_its_editor_or_time_is_a_violation(output, change):
    apply(output, edit())
    footer, _ = read_footer(committed(output))
    table = from_parquet(committed(output))
    rows = table.to_pylist()
    rows[2 * OK_ROW] |= change
    output.put(committed_path(SHARD.path), to_parquet(pa.Table.from_pylist(rows, schema=table.schema), footer))
    kinds = {violation.kind for violation in violations(output)}
    assert ViolationKind.EDIT in kinds


def test_files_of_earlier_releases_have_no_edits_and_can_be_edited(output):
    """Their caption rows lack the three columns."""
    footer, _ = read_footer(committed(output))
    table = from_parquet(committed(output)).drop_columns(["model_caption", "edited_by", "edited_at"])
    output.put(committed_path(SHARD.path), to_parquet(table, footer))
    assert violations(output) == []
    assert apply(output, edit()) == 1
    assert rows_of(output)[OK_ROW, "long"]["model_caption"] == "the model's text"
    assert violations(output) == []
