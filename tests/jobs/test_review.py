"""`joyfleet review`: the decisions of a person, from the keyboard of a real browser to the rows of the output."""

import re
import socket
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.edits_file import read_edits
from jobs.output import open_output
from jobs.review_session import Kind, Review, identity_of, read_decisions, rows_to_review
from pipeline.config import ImagesConfig, load_job
from pipeline.errors import ConfigError
from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.footer import read_footer
from pipeline.report.thumbnails import ImageSource
from pipeline.standin.demo_data import draw_dataset
from tests.browser import looking_at, needs_chromium
from tests.cli import finish, start, wait_until, write_job
from tests.jobs.test_amend import invoke, row_of
from tests.jobs.test_playground import answers
from tests.run_in_process import run_in_process

SHARD_ROWS = 4


def spoil(file: Path, changes: dict[int, dict]) -> None:
    """Make a committed file what it would be if the rules had judged these rows otherwise."""
    data = file.read_bytes()
    footer, _ = read_footer(data)
    table = from_parquet(data)
    rows = table.to_pylist()
    for row, change in changes.items():
        rows[row] |= change
    table = pa.Table.from_pylist(rows, schema=table.schema)
    file.write_bytes(to_parquet(table, with_contents(footer, table)))


def rejected(text: str, reason: str = "loop") -> dict:
    return {
        "status": "rejected",
        "reason": reason,
        "message": f"{reason}: found",
        "caption": None,
        "rejected_text": text,
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("review")
    draw_dataset(folder / "in", num_images=8, seed=1, shard_rows=SHARD_ROWS)
    run_in_process(load_job(write_job(folder, folder / "in", folder / "out")))
    first, second = sorted((folder / "out" / "captions").rglob("*.parquet"))
    spoil(first, {1: rejected("A cat, a cat, a cat."), 3: {"flags": ["truncated"], "caption": "A dog that"}})
    spoil(second, {0: rejected("assistant\n\nA bird.", "special_tokens"), 2: rejected("Sorry, no.", "refusal")})
    return folder


@pytest.fixture
def output(drawn, tmp_path):
    """A copy of the output, whose source stays where it is."""
    import shutil

    shutil.copytree(drawn / "out", tmp_path / "out")
    return tmp_path / "out"


def review_of(output: Path, kinds=tuple(Kind), earlier=()) -> Review:
    opened = open_output(str(output))
    rows = rows_to_review(opened.store, kinds, {(edit.shard, edit.row, edit.slot) for edit in earlier})
    origin = ImageSource(opened.plan.shards, opened.source, ImagesConfig.model_validate(opened.job["images"]))
    return Review(str(output), rows, origin, output.parent / "edits.csv", "ada", earlier)


def places(review: Review) -> list[int]:
    return [row["row"] for row in review.rows]


def test_flagged_and_rejected_rows_are_shown_in_the_order_of_the_output(output):
    assert places(review_of(output)) == [1, 3, 0, 2]
    assert places(review_of(output, [Kind.FLAGGED])) == [3]
    assert places(review_of(output, [Kind.REJECTED])) == [1, 0, 2]


def test_each_decision_is_in_the_file_at_once_and_amend_applies_them(output):
    review = review_of(output)
    edits_file = output.parent / "edits.csv"
    assert not edits_file.exists()
    assert review.accept(0, "A cat, a cat, a cat.") is None
    assert review.next_undecided(0) == 1
    assert len(read_edits(str(edits_file))[0]) == 1
    assert review.accept(1, "A dog that sleeps.") is None
    review.reject(3)
    assert review.next_undecided(3) == 2
    assert review.accept(2, "assistant\n\nA bird.").startswith("caption: special_tokens: ")
    assert review.accept(2, "").startswith("caption '': has no letter")
    assert review.next_undecided(3) == 2
    review.reject(2)
    review.undo(3)
    assert review.next_undecided(2) == 3
    review.reject(3)
    assert review.next_undecided(3) == len(review.rows)
    assert review.accept(len(review.rows), "") is None  # the page after the last row
    view = review.view(len(review.rows))
    assert "all 4 rows are reviewed" in view.progress
    assert re.search(r"1 accepted.*1 edited.*2 rejected.*0 left", view.progress)
    assert f"joyfleet amend {output} {edits_file}" in view.progress
    assert "4 rows changed, 0 were so already" in invoke("amend", output, edits_file)
    [accepted, edited, *_] = [row_of(output, row["shard"], row["row"]) for row in review.rows]
    assert (accepted["status"], accepted["caption"], accepted["edited_by"]) == ("ok", "A cat, a cat, a cat.", "ada")
    assert (edited["caption"], edited["model_caption"]) == ("A dog that sleeps.", "A dog that")
    assert "4 caption rows were edited by people" in invoke("verify", output)
    assert rows_to_review(open_output(str(output)).store, tuple(Kind), ()) == []


def test_a_second_session_goes_on_behind_the_first(output):
    review = review_of(output)
    review.reject(0)
    earlier = read_decisions(output.parent / "edits.csv")
    second = review_of(output, earlier=earlier)
    assert places(second) == [3, 0, 2]
    second.reject(0)
    edits, mistakes = read_edits(str(output.parent / "edits.csv"))
    assert ([(edit.shard, edit.row) for edit in edits], mistakes) == (
        [(row["shard"], row["row"]) for row in review.rows[:2]],
        [],
    )


def test_a_picture_and_all_that_is_known_of_a_row_are_shown_and_escaped(output):
    review = review_of(output)
    view = review.view(0)
    assert (view.number, view.text) == (0, "A cat, a cat, a cat.")
    assert 'src="data:image/' in view.picture
    assert "loop" in view.about
    assert review.rows[0]["prompt"] in view.about
    [first, *_] = sorted((output / "captions").rglob("*.parquet"))
    spoil(first, {1: rejected("x") | {"message": "<script>alert(1)</script>"}})
    about = review_of(output).view(0).about
    assert "<script>alert" not in about
    assert "&lt;script&gt;" in about


def test_rows_of_two_quick_keys_are_those_that_were_shown(output):
    """The second key comes before the page shows the next row: it decides on the same row again."""
    review = review_of(output)
    for _ in range(2):
        review.accept(0, "A cat.")
    edits, _ = read_edits(str(output.parent / "edits.csv"))
    assert [(edit.shard, edit.row) for edit in edits] == [identity_of(review.rows[0])[:2]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--edits", "edits.parquet"), "--edits edits.parquet: not a place for an edits file; give a .csv"),
        (("--edits", "nowhere/edits.csv"), "--edits nowhere/edits.csv: not a place for an edits file"),
        (("--editor", "a\nb"), r"--editor 'a\\nb': not a name"),
        (("--editor", " "), "--editor ' ': not a name"),
        (("--edits", "wrong.csv"), "wrong.csv: line 2: row: found 'x'.*; correct it, or give another file"),
        (("--edits", "all.csv"), "no committed row that is flagged or rejected waits for a decision"),
    ],
)
def test_what_would_refuse_the_decisions_is_refused_first(output, monkeypatch, words, message):
    monkeypatch.chdir(output.parent)
    header = "shard,row,slot,caption,editor,status\n"
    Path("wrong.csv").write_text(f"{header}a.tar,x,long,text,ada,\n")
    lines = [f"{row['shard']},{row['row']},{row['slot']},,ada,rejected\n" for row in review_of(output).rows]
    Path("all.csv").write_text(header + "".join(lines))
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(cli, ["review", str(output), *words], catch_exceptions=False)


def decided(folder: Path) -> list[tuple[int, str, str | None]]:
    file = folder / "edits.csv"
    return [(edit.row, edit.status, edit.caption) for edit in read_edits(str(file))[0]] if file.exists() else []


def wait_for(condition, page) -> None:
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not reached: {page.locator('body').inner_text()}")


@pytest.fixture
def served(output, tmp_path):
    """The page's address; at the end it is stopped with SIGTERM, as its exit code and message say."""
    pytest.importorskip("gradio", reason="no gradio here: pip install --no-deps -r infra/requirements-playground.lock")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(tmp_path, "review", str(output), "--editor", "ada", "--port", str(port))
    wait_until(lambda: answers(port), process, "an answer of the review")
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    done = finish(process)
    assert (done.code, done.err.splitlines()[-1]) == (
        4,
        "joyfleet: the review was stopped; its decisions are in edits.csv",
    )


@needs_chromium
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_accept_edit_reject_and_undo_with_the_keyboard_in_a_browser(served, output, tmp_path):
    with looking_at(served) as (page, seen):
        box = page.locator("#text textarea")

        def expect(text: str) -> None:
            wait_for(lambda: box.input_value() == text, page)

        expect("A cat, a cat, a cat.")
        wait_for(lambda: page.locator("img.picture").count() == 1, page)
        page.screenshot(path=str(tmp_path / "review.png"))
        page.keyboard.press("a")
        expect("A dog that")
        assert decided(tmp_path) == [(1, "ok", "A cat, a cat, a cat.")]
        for key in ("e", "End", *" sleeps, ajkru.", "Control+Enter"):
            page.keyboard.press(key)
        expect("assistant\n\nA bird.")
        assert decided(tmp_path)[1:] == [(3, "ok", "A dog that sleeps, ajkru.")]
        page.keyboard.press("a")  # refused: the text has a mark of a chat template
        page.get_by_text("is a mark of a chat template").first.wait_for()
        assert len(decided(tmp_path)) == 2
        page.keyboard.press("r")
        expect("Sorry, no.")
        page.keyboard.press("ArrowLeft")
        wait_for(lambda: "rejected" in page.locator(".decision").all_inner_texts(), page)
        page.keyboard.press("u")
        wait_for(lambda: len(decided(tmp_path)) == 2, page)
        page.keyboard.press("j")
        expect("Sorry, no.")
        page.keyboard.press("r")
        expect("assistant\n\nA bird.")
        page.keyboard.press("r")
        wait_for(lambda: "all 4 rows are reviewed" in page.locator("body").inner_text(), page)
        page.screenshot(path=str(tmp_path / "reviewed.png"))
        assert [url for url in seen.requests if not url.startswith((served, "data:", "blob:"))] == []
    assert sorted(decided(tmp_path)) == [
        (0, "rejected", None),
        (1, "ok", "A cat, a cat, a cat."),
        (2, "rejected", None),
        (3, "ok", "A dog that sleeps, ajkru."),
    ]
    assert "4 rows changed" in invoke("amend", output, tmp_path / "edits.csv")


@needs_chromium
@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_two_quick_keys_never_give_a_row_the_text_of_another(served, tmp_path):
    with looking_at(served) as (page, _):
        box = page.locator("#text textarea")
        wait_for(lambda: box.input_value() == "A cat, a cat, a cat.", page)
        # In one turn of the browser's loop: the second click cannot have seen an answer to the first.
        page.evaluate("for (const _ of [1, 2]) document.getElementById('accept').click()")
        wait_for(lambda: box.input_value() != "A cat, a cat, a cat.", page)
        page.wait_for_timeout(500)
    assert decided(tmp_path) == [(1, "ok", "A cat, a cat, a cat.")]
