"""Selections, duplicates and indexes beside chained jobs: what works together, and what is refused by name."""

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.config import SourceConfig, parse_job
from pipeline.config.index_config import IndexConfig, index_of_job
from pipeline.errors import ConfigError
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import prepare_stand_ins
from schemas.status import Status
from tests.chained.world import CHILD, Answers, amend, child_job, parent_job, retry, rows_of, run, write_source
from tests.selection.runs import run_job, run_tasks
from tests.selection.test_duplicates import FOLLOWERS, index, invoke, job, write_shard

SHORT = CHILD[:1]


@pytest.fixture
def folder(tmp_path):
    """A captioned tar of 6 images, whose short side is 20 px plus the number of the row; row 4 is damaged."""
    write_source(tmp_path / "in", "a.tar")
    run(parent_job(tmp_path))
    return tmp_path


@pytest.fixture
def doubles(tmp_path):
    """A parent whose job captions duplicates once, with its index; picture 0 is in two rows of a.tar."""
    write_shard(tmp_path / "in", "a.tar", [0, 1, 0, 2, 3, 4])
    write_shard(tmp_path / "in", "b.tar", [1, 5, 4, 0, 1, 6])
    index(tmp_path)
    return tmp_path


def at_least(short_side: int) -> dict:
    return {"where": {"short_side": {"min": short_side}}}


def reasons(folder, output="child"):
    """By row of a.tar."""
    return [row["reason"] or row["status"] for at, row in rows_of(folder, output).items() if at[0] == "a.tar"]


def verified(output) -> str:
    out = invoke("verify", output)
    assert "each exactly once" in out
    return out


def test_a_changed_selection_of_a_child_asks_what_it_newly_selects(folder):
    run(child_job(folder, SHORT, source=at_least(23)))
    assert reasons(folder) == ["filtered"] * 3 + ["ok", "no_parent_caption", "ok"]
    amend(parent_job(folder), "a.tar", 1, "long", None)
    wide = child_job(folder, SHORT, source=at_least(21))
    assert run(wide, extension=Extension()).asked == [("a.tar", 2, "short")]
    assert reasons(folder) == ["filtered", "no_parent_caption", "ok", "ok", "no_parent_caption", "ok"]
    assert "2 generations of the plan" in verified(folder / "child")
    # What was newly selected has a digest, so it is asked as soon as the parent has a caption.
    retry(parent_job(folder), Answers(long="At last."), statuses=[Status.REJECTED], edited=True)
    assert retry(wide).asked == [("a.tar", 1, "short")]
    verified(folder / "child")


def test_a_newly_selected_row_that_takes_a_text_of_the_parent_has_it(folder):
    taken = [{"slot": "short", "prompt": "Shorten this: {long}", "existing": "captions.long"}]
    run(child_job(folder, taken, source=at_least(23)))
    run(child_job(folder, taken, source=at_least(21)), extension=Extension())
    assert rows_of(folder)["a.tar", 2, "short"]["caption"] == "the long of a.tar 2"
    verified(folder / "child")


def test_a_stale_row_that_the_selection_does_not_select_any_more_is_skipped(folder):
    long = {"where": {"fields": {"captions.long": {"min_length": 5}}}}
    chosen = child_job(folder, SHORT, source=long)
    run(chosen)
    amend(parent_job(folder), "a.tar", 1, "long", "No.")
    assert retry(chosen).asked == []
    row = rows_of(folder)["a.tar", 1, "short"]
    assert (row["status"], row["reason"]) == ("skipped", "filtered")
    verified(folder / "child")


def test_followers_of_a_parent_have_no_caption_in_its_child(doubles):
    run_job(job(doubles), bad=[("a.tar", 0)])
    child = child_job(doubles, SHORT, source={"captions": str(doubles / "out")})
    leaders = {("a.tar", row) for row in range(6)} | {("b.tar", row) for row in range(6)}
    asked = {(shard, row) for shard, row, _ in run(child).asked}
    assert asked == leaders - set(FOLLOWERS) - {("a.tar", 0)}
    verified(doubles / "child")
    # The stand-in of the leader that failed has a caption, so its child row is stale.
    run_tasks(prepare_stand_ins(job(doubles)))
    assert retry(child).asked == [("a.tar", 2, "short")]
    verified(doubles / "child")


def test_duplicates_have_the_captions_of_their_leaders_in_all_exported_outputs(doubles):
    run_job(job(doubles))
    run_job(job(doubles, output="other", captions=[{"slot": "other", "mode": "descriptive"}]))
    words = ("--to", "parquet", "--duplicates", "--with", doubles / "other", "--workers", 1)
    invoke("export", doubles / "out", doubles / "table", *words)
    table = pq.read_table(doubles / "table").to_pylist()
    assert len(table) == 12
    assert table[2]["caption_long"] == table[0]["caption_long"] == "answer of a.tar 0 long"
    assert table[2]["caption_other"] == table[0]["caption_other"] == "answer of a.tar 0 other"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"captions": "p", "duplicates": {"index": "i"}}, "found duplicates beside captions; allowed: duplicates in"),
        ({"captions": "p", "index": "i"}, "found index beside captions; the rows of the parent output have the sizes"),
        ({"urls": ["a"], "texts": True, "index": "i"}, "found index beside texts: true; an index has images"),
        ({"urls": ["a"], "texts": True, "duplicates": {"index": "i"}}, "found duplicates beside texts: true"),
    ],
)
def test_an_index_beside_a_source_without_images_of_its_own_is_refused(source, message):
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate(source)


def test_a_source_without_images_has_no_index(folder):
    with pytest.raises(ConfigError, match=r"source\.captions: .*parent: an index has the images of shards, not the"):
        index_of_job(child_job(folder, SHORT), "out", ())
    with pytest.raises(ValidationError, match="an index has the images of shards"):
        IndexConfig.model_validate({"source": {"captions": "p"}, "output": "out"})
    texts = {"source": {"urls": ["a.parquet"], "texts": True}, "output": "out", "model": "standin"}
    with pytest.raises(ConfigError, match=r"source\.texts: true; an index has images"):
        index_of_job(parse_job({**texts, "captions": [{"slot": "a", "prompt": "b"}]}), "out", ())
