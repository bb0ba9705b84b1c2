"""A parent's row that was retried or edited makes exactly its own child rows stale, and a retry asks exactly these."""

import json

import pytest
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.errors import ConfigError, StoreError
from pipeline.flow.prepared_job import prepare_retry
from pipeline.ledger.layout import committed_path
from pipeline.ledger.stale_rows import count_stale_rows
from pipeline.storage import open_store
from schemas.status import Status
from tests.chained.world import DAMAGED, Answers, amend, child_job, parent_job, retry, rows_of, run, write_source


@pytest.fixture
def folder(tmp_path):
    write_source(tmp_path / "in")
    run(parent_job(tmp_path))
    run(child_job(tmp_path))
    return tmp_path


def counted(folder):
    child, parent = (open_store(str(folder / name)) for name in ("child", "parent"))
    count = count_stale_rows(child, parent, ["a.tar", "b.tar"])
    return count.rows, count.edited, count.shards


def invoke(*words, code=0):
    done = CliRunner().invoke(cli, list(words), catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_nothing_is_stale_at_first_and_a_retry_asks_nothing(folder):
    assert counted(folder) == (0, 0, 0)
    assert retry(child_job(folder)).asked == []


@pytest.mark.parametrize(
    ("slot", "stale"), [("long", [("a.tar", 1, "both"), ("a.tar", 1, "short")]), ("tags", [("a.tar", 1, "both")])]
)
def test_an_edit_makes_the_rows_stale_that_used_its_slot_and_only_these_are_asked_again(folder, slot, stale):
    before = rows_of(folder)
    amend(parent_job(folder), "a.tar", 1, slot, "Another text.")
    assert counted(folder) == (len(stale), 0, 1)
    files = {path: path.read_bytes() for path in (folder / "child/captions").iterdir()}
    engine = retry(child_job(folder), Answers(short="new", both="new"))
    assert engine.asked == stale
    assert all("Another text." in prompt for prompt in engine.prompts.values())
    after = rows_of(folder)
    assert [at for at in after if after[at] != before[at]] == [at for at in before if at in stale]
    assert {(after[at]["caption"], after[at]["attempts"]) for at in stale} == {("new", 2)}
    assert counted(folder) == (0, 0, 0)
    changed = [path.name for path, data in files.items() if path.read_bytes() != data]
    assert changed == ["a.tar.parquet"]
    assert retry(child_job(folder)).asked == []


def test_an_edit_that_gives_the_same_text_back_makes_nothing_stale(folder):
    amend(parent_job(folder), "a.tar", 1, "long", "Another text.")
    amend(parent_job(folder), "a.tar", 1, "long", "the long of a.tar 1")
    assert counted(folder) == (0, 0, 0)


def test_a_rejected_text_of_the_parent_takes_its_child_captions_away(folder):
    amend(parent_job(folder), "a.tar", 1, "long", None)
    assert retry(child_job(folder)).asked == []
    rows = rows_of(folder)
    assert [rows["a.tar", 1, slot]["status"] for slot in ("short", "both", "plain")] == ["skipped", "skipped", "ok"]
    assert rows["a.tar", 1, "short"]["message"] == "source.captions: no ok caption in slot long"
    assert counted(folder) == (0, 0, 0)


def test_a_parent_row_that_has_a_caption_at_last_is_asked(folder):
    amend(parent_job(folder), "b.tar", 2, "long", None)
    retry(child_job(folder))
    assert rows_of(folder)["b.tar", 2, "short"]["status"] == "skipped"
    retry(parent_job(folder), Answers(long="At last."), statuses=[Status.REJECTED], edited=True)
    assert counted(folder) == (2, 0, 1)
    assert retry(child_job(folder)).asked == [("b.tar", 2, "both"), ("b.tar", 2, "short")]
    assert rows_of(folder)["b.tar", 2, "short"]["prompt"] == "Shorten this: At last."


def test_a_stale_row_is_replaced_also_by_a_worse_result(folder):
    amend(parent_job(folder), "a.tar", 1, "long", "Another text.")
    retry(child_job(folder), Answers(short=""))
    row = rows_of(folder)["a.tar", 1, "short"]
    assert (row["status"], row["reason"]) == ("rejected", "empty_caption")
    assert counted(folder) == (0, 0, 0)


def test_a_stale_row_that_a_person_edited_is_counted_and_left_alone(folder):
    amend(child_job(folder), "a.tar", 1, "short", "By hand.")
    amend(parent_job(folder), "a.tar", 1, "long", "Another text.")
    assert counted(folder) == (2, 1, 1)
    assert retry(child_job(folder)).asked == [("a.tar", 1, "both")]
    assert rows_of(folder)["a.tar", 1, "short"]["caption"] == "By hand."
    assert counted(folder) == (1, 1, 1)
    assert retry(child_job(folder), edited=True).asked == [("a.tar", 1, "short")]
    assert counted(folder) == (0, 0, 0)


def test_a_text_that_was_taken_from_the_parent_is_stale_too(folder):
    slot = {"slot": "taken", "prompt": "Shorten: {long}", "existing": "captions.long"}
    job = child_job(folder, [slot], "taken")
    run(job)
    amend(parent_job(folder), "a.tar", 1, "long", "Another text.")
    assert retry(job).asked == []
    assert rows_of(folder, "taken")["a.tar", 1, "taken"]["caption"] == "Another text."


def test_a_chain_of_three_becomes_stale_link_by_link(folder):
    third = child_job(folder, [{"slot": "tiny", "prompt": "{short}"}], "third", {"captions": str(folder / "child")})
    run(third)
    amend(parent_job(folder), "a.tar", 1, "long", "Another text.")
    assert retry(third).asked == []
    retry(child_job(folder), Answers(short="new"))
    assert retry(third).asked == [("a.tar", 1, "tiny")]


def test_a_retry_of_failed_rows_asks_no_other_slot_of_their_images(folder):
    amend(parent_job(folder), "a.tar", 1, "tags", None)
    engine = retry(parent_job(folder), statuses=[Status.REJECTED], edited=True)
    assert engine.asked == [("a.tar", 1, "tags")]


def test_a_row_of_a_failed_image_is_not_stale(folder):
    retry(parent_job(folder), statuses=[Status.FAILED])
    assert counted(folder) == (0, 0, 0)
    assert rows_of(folder)["a.tar", DAMAGED, "plain"]["status"] == "failed"


def test_status_counts_stale_rows_on_request(folder):
    amend(child_job(folder), "a.tar", 1, "short", "By hand.")
    amend(parent_job(folder), "a.tar", 1, "long", "Another text.")
    child = str(folder / "child")
    assert f"parent      {folder}/parent" in invoke("status", child)
    counted_line = (
        "stale       2 rows in 1 shards; people edited 1 of them: `joyfleet retry OUTPUT --rows stale` requests"
    )
    assert counted_line in invoke("status", child, "--stale")
    state = json.loads(invoke("status", child, "--stale", "--json"))
    assert (state["parent"], state["stale"]) == (str(folder / "parent"), {"rows": 2, "edited": 1, "shards": 1})
    assert json.loads(invoke("status", child, "--json"))["stale"] is None
    assert "parent      " not in invoke("status", str(folder / "parent"))
    assert "--stale reads all captions" in invoke("status", child, "--stale", "--watch", code=2)
    with pytest.raises(ConfigError, match="is not made from captions"):
        invoke("status", str(folder / "parent"), "--stale")


def test_stale_rows_of_an_output_without_a_parent_are_refused(folder):
    with pytest.raises(ConfigError, match=r"--rows stale: the source of .*parent is .*in, not the captions of an out"):
        prepare_retry(parent_job(folder), (), stale=True)
    assert "or stale, alone" in " ".join(
        invoke("retry", str(folder / "child"), "--rows", "failed,stale", code=2).split()
    )


@pytest.mark.parametrize("spoil", [lambda store, path: store.delete([path]), lambda store, path: store.put(path, b"x")])
def test_a_parents_file_that_is_gone_or_damaged_is_named(folder, spoil):
    spoil(open_store(str(folder / "parent")), committed_path("a.tar"))
    with pytest.raises(StoreError, match=r"parent/captions/a\.tar\.parquet: .*; restore the file"):
        counted(folder)
