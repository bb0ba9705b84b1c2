"""What the first edition wrote is read, resumed, retried, reported and exported by the code of today."""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.config import JobConfig, load_corpus, load_job
from pipeline.config.load import read_stored
from pipeline.config.renamed_keys import with_new_names
from pipeline.corpus.corpus_job import prepare_corpus
from pipeline.errors import OutputMismatch
from pipeline.flow.prepared_job import check_job, prepare_job
from pipeline.prompts import RequestSampler, draw_seed
from schemas.caption_row import CAPTION_ROW
from tests.cli import run
from tests.golden import golden
from tests.golden.golden import FIRST, OUTPUT, UNFINISHED, bytes_of
from tests.outputs import committed_rows, fragments_of

IMAGES = {"photos/images-00000": 8, "shards/00000.tar": 7, "shards/00001.parquet": 5, "shards/00002.zip": 5}
"""Of the committed shards."""
DAMAGED_IMAGES, UNFINISHED_IMAGES, STAGED_IMAGES = 3, 12, 6


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the golden folder, and the working directory: its sources are relative paths."""
    result = golden.copy_of(FIRST, tmp_path / "golden")
    monkeypatch.chdir(result)
    return result


def invoke(verb: tuple[str, ...], *words: str, code: int = 0) -> str:
    """Run a verb in this process, which spares the start of one each."""
    done = CliRunner().invoke(cli, [*verb, *words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def shell(folder: Path, verb: tuple[str, ...], *words: str, code: int = 0) -> str:
    """Run a verb as a process of its own, as one must be that starts Ray or redirects its output."""
    done = run(folder, *verb, *words)
    assert done.code == code, done
    return done.out + done.err


def fingerprint_of(folder: Path) -> str:
    return json.loads((folder / "run.json").read_text())["recipe"]["fingerprint"]


def shards_of(output: str) -> dict[str, int]:
    return json.loads(invoke(golden.STATUS, output, "--json"))["shards"]


def staged_rows(folder: Path) -> list[dict]:
    return [row for file in fragments_of(folder / OUTPUT) for row in pq.read_table(file).to_pylist()]


def by_identity(rows) -> dict:
    """Rows by identity; columns that a later release added are null in the rows of an earlier one."""
    added = dict.fromkeys(CAPTION_ROW.names)
    return {(row["shard"], row["row"], row["slot"]): added | row for row in rows}


def text_rows(corpus: Path) -> dict[str, list[dict]]:
    files = sorted([*(corpus / "text").rglob("*.parquet"), *(corpus / "records").rglob("*.parquet")])
    return {file.relative_to(corpus).as_posix(): pq.read_table(file).to_pylist() for file in files}


JOBS = pytest.mark.parametrize(("job", "output"), [("job.yaml", OUTPUT), ("endpoint.yaml", golden.ENDPOINT)])


@JOBS
def test_the_same_job_has_the_same_fingerprint(folder, job, output):
    recipe, _, _ = check_job(load_job(job))
    assert recipe.fingerprint == fingerprint_of(folder / output)


@JOBS
def test_the_job_in_run_json_is_read_with_its_old_meaning(folder, job, output):
    described = json.loads((folder / output / "run.json").read_text())["about"]["job"]
    assert read_stored(JobConfig, with_new_names(described), f"{output}/run.json") == load_job(job)


@pytest.mark.parametrize(("output", "finished"), [(golden.CORPUS, True), (golden.KILLED_CORPUS, False)])
def test_the_same_corpus_has_the_same_fingerprint(folder, output, finished):
    prepared = prepare_corpus(load_corpus("corpus.yaml", [f"output={output}"]))
    assert prepared.recipe.fingerprint == fingerprint_of(folder / output)
    assert prepared.finished is finished
    assert len(prepared.captions) == len(IMAGES)


def test_a_job_with_another_recipe_is_refused(folder):
    before = bytes_of(folder)
    with pytest.raises(OutputMismatch, match=rf"{re.escape(golden.TEMPERATURE)}.*0\.5.*0\.1"):
        prepare_job(load_job("job.yaml", [f"{golden.TEMPERATURE}=0.1"]))
    with pytest.raises(OutputMismatch, match=rf"{re.escape(golden.GEN_META)}.*0\.3.*0\.7"):
        prepare_corpus(load_corpus("corpus.yaml", [f"{golden.GEN_META}=0.7"]))
    assert bytes_of(folder) == before


def test_every_image_has_the_same_requests_with_the_same_seeds(folder):
    job = load_job("job.yaml")
    asker = RequestSampler(job)
    rows = [*committed_rows(folder / OUTPUT), *staged_rows(folder)]
    assert len(rows) == 2 * (sum(IMAGES.values()) + STAGED_IMAGES)
    for row in rows:
        [request] = [item for item in asker.requests(row["shard"], row["row"]) if item.slot == row["slot"]]
        for name in ("mode", "tone", "length_kind", "length_words", "length_class", "name", "prompt", "system"):
            assert getattr(request, name) == row[name], (row["shard"], row["row"], name)
        assert list(request.options) == row["options"]
        attempt = max(0, row["attempts"] - 1)
        assert draw_seed(job.seed, row["shard"], row["row"], row["slot"], attempt) == row["seed"]


def test_status_shows_shards_fragments_quarantine_and_how_the_runs_ended(folder):
    seen = json.loads(invoke(golden.STATUS, OUTPUT, "--json"))
    assert seen["shards"] == {"planned": 6, "committed": 4, "left": 1, "partly_staged": 1, "quarantined": 1}
    assert seen["fragments_staged"] == 3
    assert seen["slots"] == ["long", "tags"]
    assert [(run["state"], run["exit_code"]) for run in seen["runs"]] == [
        ("abort", 4),
        ("silent", None),
        ("complete", 3),
    ]
    assert seen["runs"][0]["statuses"] == {"ok": 24, "rejected": 8, "failed": 6}
    [failed] = json.loads(invoke(golden.STATUS, golden.ENDPOINT, "--json"))["runs"]
    assert (failed["state"], failed["exit_code"]) == ("fail", 1)
    assert "shards/00003.tar" in invoke(golden.STATUS, OUTPUT)


def test_plan_finds_what_is_left(folder):
    planned = json.loads(invoke(golden.PLAN, "job.yaml", "--json"))
    assert planned["left"]["shards"] == 1
    assert planned["resumed"]["shards_done"] == 5
    assert planned["remarks"] == []


def test_verify_finds_nothing_wrong_but_the_shard_that_is_not_committed(folder):
    [unfinished, quarantined, note, counts] = invoke(golden.VERIFY, OUTPUT, code=1).splitlines()
    assert UNFINISHED in unfinished
    assert "shards/00003.tar" in quarantined
    assert "4 of 4 files have no digest" in note
    assert "50 caption rows" in counts


def test_clean_finds_no_leftovers(folder):
    before = bytes_of(folder)
    invoke(golden.CLEAN, OUTPUT)
    assert bytes_of(folder) == before


def test_quality_and_report_count_every_committed_row(folder):
    invoke(golden.QUALITY, OUTPUT)
    groups = pq.read_table(folder / OUTPUT / "report/quality/groups.parquet").to_pylist()
    assert sum(group["rows"] for group in groups) == 50
    assert {status: sum(group[status] for group in groups) for status in ("rejected", "failed")} == {
        "rejected": 11,
        "failed": 6,
    }
    invoke(golden.REPORT, OUTPUT)
    page = (folder / OUTPUT / "report/index.html").read_text()
    assert "fancyfeast/llama-joycaption-alpha-two-hf-llava" in page
    assert "mean colour 39 39 39" in page


def test_an_export_has_the_same_bytes_and_its_folder_is_still_its_own(folder):
    before = bytes_of(folder / golden.EXPORT)
    invoke(golden.EXPORT_TO, OUTPUT, "again", *golden.GOLDEN_EXPORT, "--workers", "1", code=3)
    data = {path: data for path, data in bytes_of(folder / "again").items() if path.startswith("data/")}
    assert data == {path: data for path, data in before.items() if path.startswith("data/")}
    assert len(data) == len(IMAGES)
    invoke(golden.EXPORT_TO, OUTPUT, golden.EXPORT, *golden.GOLDEN_EXPORT, "--workers", "1", code=3)
    assert bytes_of(folder / golden.EXPORT) == before


def test_an_export_with_images_reads_the_source_again(folder):
    invoke(golden.EXPORT_TO, OUTPUT, "hf", "--to", "hf", "--slot", "long", "--workers", "1", code=3)
    rows = [row for file in sorted((folder / "hf").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    wanted = [row for row in committed_rows(folder / OUTPUT) if (row["slot"], row["status"]) == ("long", "ok")]
    assert Counter(row["caption"] for row in rows) == Counter(row["caption"] for row in wanted)
    assert all(row["image"]["bytes"] for row in rows)


def test_the_texts_of_the_corpus_keep_the_grammar(folder):
    files = [str(file) for file in sorted((folder / golden.CORPUS / "text").rglob("*.*"))]
    invoke(golden.MAKE_CORPUS, *(word for file in files for word in ("--check", file)))


@pytest.mark.slow
def test_a_run_resumes_keeps_staged_rows_and_requests_failed_ones_again(folder):
    output = folder / OUTPUT
    before, staged = bytes_of(output / "captions"), staged_rows(folder)
    golden.repair(folder)
    invoke(golden.LEAVE_QUARANTINE, OUTPUT)
    assert shards_of(OUTPUT)["left"] == 2
    shell(folder, golden.CAPTION, "job.yaml")
    last = json.loads(invoke(golden.STATUS, OUTPUT, "--json"))["runs"][-1]
    assert (last["state"], last["exit_code"]) == ("complete", 0)
    assert last["images"] == DAMAGED_IMAGES + UNFINISHED_IMAGES - STAGED_IMAGES
    after = bytes_of(output / "captions")
    assert {path: after[path] for path in before} == before
    rows = by_identity(committed_rows(output))
    assert len(rows) == 2 * (sum(IMAGES.values()) + DAMAGED_IMAGES + UNFINISHED_IMAGES)
    assert {identity: rows[identity] for identity in by_identity(staged)} == by_identity(staged)
    assert Counter(row["shard"] for row in rows.values())[UNFINISHED] == 2 * UNFINISHED_IMAGES
    assert shards_of(OUTPUT) == {"planned": 6, "committed": 6, "left": 0, "partly_staged": 0, "quarantined": 0}
    assert not fragments_of(output)
    assert json.loads(invoke(golden.PLAN, "job.yaml", "--json"))["left"]["shards"] == 0
    invoke(golden.VERIFY, OUTPUT)
    _export_adds_the_new_shards(folder)
    _retry_rows(output, rows)


def _export_adds_the_new_shards(folder: Path) -> None:
    before = bytes_of(folder / golden.EXPORT)
    invoke(golden.EXPORT_TO, OUTPUT, golden.EXPORT, *golden.GOLDEN_EXPORT, "--workers", "1")
    after = bytes_of(folder / golden.EXPORT)
    assert {path: after[path] for path in before} == before
    assert len([path for path in after if path.startswith("data/")]) == len(IMAGES) + 2


def _retry_rows(output: Path, before: dict) -> None:
    """Ask the rows of the old run.json's job again: those that did not end well get no worse, the rest stays."""
    # The old run.json names a vocabulary file, which is the caller's to name.
    shell(output.parent, golden.RETRY_ROWS, OUTPUT, "--rows", "failed,rejected", "--job", "job.yaml")
    after = by_identity(committed_rows(output))
    assert after.keys() == before.keys()
    unwell = {identity for identity, row in before.items() if row["status"] != "ok"}
    assert {identity for identity, row in after.items() if row != before[identity]} <= unwell
    ended = Counter((before[identity]["status"], after[identity]["status"]) for identity in unwell)
    assert ended["rejected", "ok"] > 0
    assert ended["failed", "failed"] == 6
    assert {row["recipe"] for row in after.values()} == {fingerprint_of(output)}
    invoke(golden.VERIFY, OUTPUT)


@pytest.mark.slow
def test_a_killed_corpus_resumes_and_becomes_the_one_that_was_finished(folder):
    whole, killed = folder / golden.CORPUS, folder / golden.KILLED_CORPUS
    before = bytes_of(whole)
    shell(folder, golden.MAKE_CORPUS, "corpus.yaml")
    assert bytes_of(whole) == before
    published = {path: data for path, data in bytes_of(killed).items() if not path.startswith("staging/")}
    shell(folder, golden.MAKE_CORPUS, "corpus.yaml", "--set", f"output={golden.KILLED_CORPUS}")
    after = bytes_of(killed)
    assert {path: after[path] for path in published} == published
    assert not (killed / "staging").exists()
    assert text_rows(killed) == text_rows(whole)
    for name in ("counts", "tags"):
        assert pq.read_table(killed / f"report/{name}.parquet").equals(pq.read_table(whole / f"report/{name}.parquet"))
