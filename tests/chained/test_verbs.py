"""Verbs that read an output, on the output of a chained job."""

import asyncio
import json

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from jobs.plan import make_plan
from jobs.preview import _checked, sample_for
from pipeline.config import load_corpus
from pipeline.config.corpus_config import CaptionsConfig
from pipeline.corpus.corpus_job import prepare_corpus
from pipeline.errors import ConfigError, PipelineError
from pipeline.report.preview_page import caption_sample, preview_page
from tests.chained.world import CHILD, DAMAGED, NUM_ROWS, Answers, amend, child_job, parent_job, run, write_source

CAPTIONED = 2 * (NUM_ROWS - 1)


@pytest.fixture
def folder(tmp_path):
    write_source(tmp_path / "in")
    run(parent_job(tmp_path))
    run(child_job(tmp_path, CHILD[:2]))
    return tmp_path


def invoke(*words, code=0):
    done = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def test_verify_proves_a_child_from_its_parent_without_the_images(folder):
    (folder / "in").rename(folder / "away")
    out = invoke("verify", folder / "child")
    assert f"{2 * NUM_ROWS} images x 2 slots = {4 * NUM_ROWS} caption rows: each exactly once" in out
    amend_other_image(folder)
    assert "image_sha256" in invoke("verify", folder / "child", code=1)


def amend_other_image(folder):
    """Make the parent's rows those of another image."""
    from pipeline.ledger.caption_table import from_parquet, to_parquet
    from pipeline.ledger.footer import read_footer

    path = folder / "parent/captions/a.tar.parquet"
    footer, table = read_footer(path.read_bytes())[0], from_parquet(path.read_bytes())
    at = table.column_names.index("image_sha256")
    path.write_bytes(to_parquet(table.set_column(at, table.schema.field(at), [["0" * 64] * table.num_rows]), footer))


def test_verify_and_report_find_a_parent_that_has_moved(folder):
    (folder / "parent").rename(folder / "moved")
    with pytest.raises(ConfigError, match="so not an output"):
        invoke("verify", folder / "child")
    assert "each exactly once" in invoke("verify", folder / "child", "--source", folder / "moved")
    with pytest.raises(ConfigError, match="is made from the captions of one output"):
        invoke("verify", folder / "child", "--source", "a", "--source", "b")
    page = folder / "page.html"
    invoke("report", folder / "child", "--page", page, "--source", folder / "moved")
    assert page.read_text().count("data:image/") > 2


def test_a_plan_counts_what_is_asked_and_reads_no_image(folder):
    amend(parent_job(folder), "a.tar", 1, "tags", None)
    (folder / "in").rename(folder / "away")
    plan = make_plan(child_job(folder, CHILD[:1], "new"), None, {})
    assert (plan["source"]["images"], plan["source"]["counted"]) == (2 * NUM_ROWS, True)
    assert plan["left"]["images"] == CAPTIONED
    assert plan["estimate"]["captions"] == CAPTIONED
    assert plan["prompt_fields"]["with_text"] == {"captions.long": CAPTIONED}
    assert plan["selection"]["screened"]["skipped"] == {"source.captions: no ok caption in slot long": 2}
    out = invoke("plan", job_file(folder, CHILD[:1]))
    assert "found: 2 output" in out
    assert "a.tar begins with: captions in the slots long, tags" in out


def job_file(folder, captions, name="plan.json"):
    file = folder / name
    file.write_text(child_job(folder, captions, "new").model_dump_json())
    return file


def test_a_preview_shows_the_parents_words_marked(folder):
    job = child_job(folder, CHILD[:1])
    recipe = _checked("a.yaml", job)
    sample = sample_for([recipe], job, 4)
    previewed = asyncio.run(caption_sample("a", Answers(), recipe.caption, recipe.read, sample))
    page = preview_page("a", [previewed], sample)
    assert page.count('<mark title="source.captions.long">the long of') == 4
    assert page.count("data:image/") == 4


def test_an_export_joins_parent_and_child_by_identity(folder):
    amend(parent_job(folder), "a.tar", 1, "tags", None)
    invoke("export", folder / "child", folder / "out", "--to", "parquet", "--with", folder / "parent", "--workers", 1)
    rows = [row for file in sorted((folder / "out").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len(rows) == CAPTIONED
    assert rows[0]["caption_short"] == "the short of a.tar 0"
    assert (rows[0]["caption_long"], rows[1]["caption_tags"]) == ("the long of a.tar 0", None)
    out = folder / "texts"
    words = ("--to", "sidecars", "--with", folder / "parent", "--template", "{short} ({tags})", "--workers", 1)
    invoke("export", folder / "child", out, *words)
    assert (
        sorted(file.read_text().strip() for file in out.rglob("*.txt"))[0]
        == "the short of a.tar 0 (the tags of a.tar 0)"
    )
    again = invoke("export", folder / "child", out, *words)
    assert f"{CAPTIONED - 1} of {2 * NUM_ROWS} images" in again


def test_an_export_with_an_output_that_does_not_fit_is_refused(folder):
    with pytest.raises(ConfigError, match="slot both is in several of the outputs"):
        invoke("export", folder / "child", folder / "o1", "--to", "csv", "--with", folder / "child")
    write_source(folder / "in", "a.tar", "b.tar", rows=2)
    run(parent_job(folder, "other", captions=[{"slot": "x", "mode": "descriptive"}]))
    with pytest.raises(PipelineError, match=r"shard a\.tar: row 2 is another image in .*other than in .*child"):
        invoke("export", folder / "child", folder / "o2", "--to", "csv", "--with", folder / "other", "--workers", 1)


def test_an_export_after_a_change_of_the_joined_output_is_refused(folder):
    words = ("export", folder / "child", folder / "out", "--to", "csv", "--with", folder / "parent", "--workers", 1)
    invoke(*words)
    amend(parent_job(folder), "a.tar", 1, "tags", "Quite a lot of other tags, which make the file larger than before.")
    with pytest.raises(PipelineError, match="the captions of 1 shards changed since they were exported"):
        invoke(*words)


def test_an_export_of_a_child_has_the_images_of_the_first_source(folder):
    invoke("export", folder / "child", folder / "out", "--to", "hf", "--workers", 1)
    rows = [row for file in sorted((folder / "out").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert len(rows) == CAPTIONED
    assert rows[0]["image"]["bytes"][:4] == b"\x89PNG"


def test_a_corpus_joins_parent_and_child_by_image(folder):
    file = folder / "corpus.json"
    file.write_text(
        json.dumps(
            {
                "output": str(folder / "corpus"),
                "captions": [
                    {
                        "name": "photos",
                        "outputs": [str(folder / "parent"), str(folder / "child")],
                        "long": "long",
                        "short": "short",
                    }
                ],
            }
        )
    )
    prepared = prepare_corpus(load_corpus(str(file)))
    assert [len(unit.captions) for unit in prepared.captions] == [2, 2]
    entry: CaptionsConfig = prepared.config.captions[0]
    assert facts_of(prepared.captions[0], entry)[0] == ("the long of a.tar 0", "the short of a.tar 0")


def facts_of(unit, entry):
    from collections import Counter

    from pipeline.corpus.tables.source_images import images_of

    images = list(images_of(unit, entry, None, Counter(), 2))
    assert len(images) == NUM_ROWS
    return [(image.facts.get("long"), image.facts.get("short")) for image in images if image.row != DAMAGED]
