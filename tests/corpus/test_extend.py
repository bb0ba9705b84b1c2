"""Epochs that are added to a finished corpus are those that a longer job draws, and nothing else changes."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import load_corpus
from pipeline.config.corpus_export_config import CorpusExportConfig
from pipeline.corpus import libraries
from pipeline.corpus.corpus_job import prepare_corpus, steps
from pipeline.corpus.export.export_corpus import export_corpus
from pipeline.corpus.report.corpus_report import rewrite_card
from pipeline.errors import ConfigError, OutputMismatch, PipelineError, StoreError
from pipeline.storage import open_store
from tests.corpus.test_card import result_of
from tests.corpus.test_job import LONG, SHORT, TAGS, corpus, lines, make, rows_of, trained_at
from tests.corpus.test_languages import GERMAN, splits
from tests.corpus.test_shuffle import inputs
from tests.golden import golden

CHANGING = ("README.md", "report/")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def kept(folder: Path) -> dict[str, bytes]:
    """Every file that an extension must not change."""
    return {path: data for path, data in bytes_of(folder).items() if not path.startswith(CHANGING)}


def content(folder: Path) -> dict[str, object]:
    """What a corpus says, without attempts and fingerprints, which two jobs do not share."""
    result: dict[str, object] = {"card": (folder / "README.md").read_text()}
    for kind in ("text", "records", "packing", "report"):
        for file in sorted((folder / kind).rglob("*.parquet")):
            result[file.relative_to(folder).as_posix()] = pq.read_table(file).to_pylist()
    for file in (folder / "manifest").rglob("*.json"):
        own = ("attempt", "recipe")
        manifest = {name: value for name, value in json.loads(file.read_text()).items() if name not in own}
        result[file.relative_to(folder).as_posix()] = manifest
    return result


def extended(folder: Path, config, *epochs: int) -> None:
    for number in epochs:
        before = kept(folder / "corpus")
        make(config, epochs=number)
        after = kept(folder / "corpus")
        assert {path: after.get(path) for path in before} == before
        assert len(after) > len(before)
    assert not (folder / "corpus/staging").exists()


@pytest.mark.parametrize("keys", [{}, {"shuffle": {"rows": 16}}], ids=["plain", "shuffled"])
@pytest.mark.parametrize("epochs", [(5,), (3, 5)], ids=["once", "twice"])
def test_added_epochs_equal_those_of_a_job_that_began_with_them(tmp_path, keys, epochs):
    tokenizer = {"path": trained_at(tmp_path / "t.json"), "context": 70, "pack": 70}
    keys = {**inputs(tmp_path / "in"), **keys, "tokenizer": tokenizer, "formats": ["parquet", "jsonl"]}
    make(corpus(tmp_path / "long", **keys, epochs=5))
    config = corpus(tmp_path, **keys, epochs=2)
    make(config)
    shutil.rmtree(tmp_path / "in")  # captions and tables are not read again
    extended(tmp_path, config, *epochs)
    assert content(tmp_path / "corpus") == content(tmp_path / "long/corpus")
    lines_of = {path: data for path, data in bytes_of(tmp_path / "corpus/text").items() if path.endswith(".zst")}
    assert lines_of.keys() == {p for p in bytes_of(tmp_path / "long/corpus/text") if p.endswith(".zst")}


def test_a_corpus_of_the_first_edition_gets_more_epochs(tmp_path, monkeypatch):
    folder = golden.copy_of(golden.FIRST, tmp_path / "golden")
    monkeypatch.chdir(folder)  # the sources of the golden job are relative paths
    config = load_corpus("corpus.yaml")
    before = kept(folder / golden.CORPUS)
    counts = pq.read_table(folder / golden.CORPUS / "report/counts.parquet").to_pylist()
    prepared = prepare_corpus(config, 3)
    assert any("the added texts are drawn by the rules of this release" in remark for remark in prepared.remarks)
    make(config, epochs=3)
    after = kept(folder / golden.CORPUS)
    assert {path: after[path] for path in before} == before
    texts = pq.read_table(folder / golden.CORPUS / "report/texts.parquet").to_pylist()
    by_epoch = [sum(row["rows"] for row in texts if row["epoch"] == epoch) for epoch in range(3)]
    assert by_epoch[0] == by_epoch[1] == by_epoch[2] > 0
    # The first edition did not measure its texts, so a histogram would be that of the added ones only.
    assert not pq.read_table(folder / golden.CORPUS / "report/histograms.parquet").num_rows
    added = {(row["source"], row["reason"]): row["number"] for row in counts}
    for row in pq.read_table(folder / golden.CORPUS / "report/counts.parquet").to_pylist():
        times = 3 if row["reason"].startswith("unrendered_") else 1
        assert row["number"] == times * added[row["source"], row["reason"]]


def test_the_job_file_may_have_the_old_or_the_new_number_of_epochs(tmp_path):
    keys = inputs(tmp_path / "in")
    config = corpus(tmp_path, **keys)
    make(config)
    with pytest.raises(OutputMismatch, match=r"has 1 epochs, and the job 3; .* with --epochs 3; else change the job"):
        prepare_corpus(corpus(tmp_path, **keys, epochs=3))
    make(corpus(tmp_path, **keys, epochs=3), epochs=3)
    before = bytes_of(tmp_path / "corpus")
    for epochs, flag in ((1, None), (3, None), (1, 3), (3, 3)):
        prepared = prepare_corpus(corpus(tmp_path, **keys, epochs=epochs), flag)
        assert prepared.finished
        assert prepared.config.epochs == 3
    with pytest.raises(OutputMismatch, match=r"epochs: 1 in the output, 2 in this run"):
        prepare_corpus(corpus(tmp_path, **keys, epochs=2))
    with pytest.raises(OutputMismatch, match=r"render\.gen_meta"):
        prepare_corpus(corpus(tmp_path, **keys, render={"gen_meta": 0.5}), 4)
    assert bytes_of(tmp_path / "corpus") == before


def test_epochs_that_cannot_be_added_are_refused(tmp_path):
    keys = inputs(tmp_path / "in")
    config = corpus(tmp_path, **keys, epochs=2)
    with pytest.raises(ConfigError, match=r"--epochs 3: .* does not exist; set `epochs` in the job instead"):
        prepare_corpus(config, 3)
    make(config, until="report")
    with pytest.raises(ConfigError, match=r"--epochs 3: .* is not finished; finish its 2 epochs first: joyfleet corp"):
        prepare_corpus(config, 3)
    make(config)
    with pytest.raises(ConfigError, match=r"--epochs 1: .* has 2 epochs already; allowed: 2 or more"):
        prepare_corpus(config, 1)
    assert prepare_corpus(config, 2).finished
    make(config, until="report", epochs=3)
    with pytest.raises(ConfigError, match=r"is not finished; finish its 3 epochs first: .* --epochs 3"):
        prepare_corpus(config, 4)
    with pytest.raises(ConfigError, match=r"the corpus is not finished; `joyfleet corpus` resumes it"):
        export_corpus(open_store(config.output), tmp_path / "export", CorpusExportConfig(to="tipo-v2"), lambda *_: None)
    with pytest.raises(ConfigError, match=r"the corpus is not finished; `joyfleet corpus` resumes it"):
        rewrite_card(open_store(config.output))
    # The same command without the option goes on with the extension.
    assert not prepare_corpus(config).finished
    make(config)
    assert prepare_corpus(config).finished
    assert (tmp_path / "corpus/text/train/epoch-002").is_dir()


def test_the_result_of_a_training_stays_when_epochs_are_added(tmp_path):
    config = corpus(tmp_path, **inputs(tmp_path / "in"))
    make(config)
    rewrite_card(open_store(config.output), json.dumps(result_of(tmp_path / "corpus")).encode(), "r.json")
    make(config, epochs=2)
    card = (tmp_path / "corpus/README.md").read_text()
    assert "training texts in 2 epochs" in card
    assert "## A model trained on it" in card
    before = bytes_of(tmp_path / "corpus")
    rewrite_card(open_store(config.output))
    assert bytes_of(tmp_path / "corpus") == before


def test_published_records_that_are_gone_or_other_are_refused(tmp_path):
    config = corpus(tmp_path, **inputs(tmp_path / "in"))
    make(config)
    [file, *_] = sorted((tmp_path / "corpus/records/train").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(StoreError, match=r"records/train/.*: has \d+ records, expected \d+; restore it"):
        make(config, epochs=2)
    file.unlink()
    with pytest.raises(StoreError, match=r"records/train/.*: is missing; restore the \d+ records of it"):
        make(config, epochs=2)


def test_an_export_of_fewer_epochs_is_not_overwritten(tmp_path):
    config = corpus(tmp_path, **inputs(tmp_path / "in"))
    make(config)
    to = CorpusExportConfig(to="tipo-v2")
    export_corpus(open_store(config.output), tmp_path / "export", to, lambda *_: None)
    make(config, epochs=2)
    with pytest.raises(OutputMismatch, match=r"epochs: not set in the output, 2 in this run"):
        export_corpus(open_store(config.output), tmp_path / "export", to, lambda *_: None)


@pytest.mark.parametrize("keys", [{}, {"shuffle": {"rows": 16}}], ids=["plain", "shuffled"])
@pytest.mark.parametrize("epochs", [(5,), (3, 5)], ids=["once", "twice"])
def test_added_epochs_follow_the_schedule_of_a_job_that_began_with_them(tmp_path, keys, epochs):
    schedule = [
        # The photos have no text before epoch 2, so their examples on the card are of an added epoch.
        {"sources": "photos", "last_epoch": 1, "weight": 0},
        {"sources": "photos", "weight": 2.5},
        {"sources": "posts", "first_epoch": 1, "tasks": ["tag_to_long", "long_to_tag"]},
        {"sources": "posts", "last_epoch": 0, "weight": 2},
        {"sources": "posts", "first_epoch": 1, "weight": 0.5},
    ]
    keys = {**inputs(tmp_path / "in"), **keys, "schedule": schedule}
    make(corpus(tmp_path / "long", **keys, epochs=5))
    config = corpus(tmp_path, **keys, epochs=2)
    make(config)
    extended(tmp_path, config, *epochs)
    assert content(tmp_path / "corpus") == content(tmp_path / "long/corpus")
    texts = pq.read_table(tmp_path / "corpus/report/texts.parquet").to_pylist()
    photos = [sum(row["rows"] for row in texts if (row["source"], row["epoch"]) == ("photos", n)) for n in range(5)]
    assert photos[:2] == [0, 0]
    assert all(80 < number < 120 for number in photos[2:])  # 40 photos
    added = {row["task"] for row in texts if row["source"] == "posts" and row["epoch"] > 0}
    assert added == {"tag_to_long", "long_to_tag"}
    report = bytes_of(tmp_path / "corpus")
    rewrite_card(open_store(config.output))
    assert bytes_of(tmp_path / "corpus") == report


def test_epochs_for_which_the_schedule_has_no_text_are_not_added(tmp_path):
    schedule = [{"sources": "posts", "last_epoch": 1, "weight": 1}, {"weight": 0}]
    config = corpus(tmp_path, **inputs(tmp_path / "in"), epochs=2, schedule=schedule)
    make(config)
    before = bytes_of(tmp_path / "corpus")
    with pytest.raises(
        ConfigError, match=r"--epochs 4: schedule: no source has a weight above 0 in epoch 2; allowed: --epochs 2 at"
    ):
        prepare_corpus(config, 4)
    assert bytes_of(tmp_path / "corpus") == before
    assert prepare_corpus(config).finished


def test_the_schedule_of_an_extended_corpus_cannot_change(tmp_path):
    keys = inputs(tmp_path / "in")
    make(corpus(tmp_path, **keys))
    with pytest.raises(OutputMismatch, match=r"schedule"):
        prepare_corpus(corpus(tmp_path, **keys, epochs=2, schedule={"first_epoch": 1, "weight": 2}), 2)


@pytest.mark.parametrize(
    "render", [{}, pytest.param({"sentences": "sentencex"}, marks=splits)], ids=["rules", "sentencex"]
)
def test_added_epochs_are_of_the_records_that_filters_kept_with_their_languages_and_tags(tmp_path, render):
    rows = [
        {
            "id": number,
            "tags": {**dict.fromkeys(TAGS, 0.9), "cat girl": 0.8, "hat": 0.1},
            "short": SHORT,
            "long": GERMAN if number % 2 else LONG.format(number),
            "lang": "de" if number % 2 else None,
            "score": number,
        }
        for number in range(80)
    ]
    (tmp_path / "implied.csv").write_text("cat girl,animal ears\n")
    keys = {
        "tables": {"name": "t", "urls": lines(tmp_path / "t.jsonl", rows), "columns": {"language": "lang"}},
        "tags": {"min_confidence": 0.5, "add_implied": True},
        "tag_files": {"implications": str(tmp_path / "implied.csv")},
        "filters": [{"score_percentile": {"min": 20}, "tags": {"all": "animal ears", "none": "hat"}}],
        "render": render,
        "split": {"validation": 0.2},
        "schedule": {"weight": 1.5},
    }
    make(corpus(tmp_path / "long", **keys, epochs=4))
    config = corpus(tmp_path, **keys, epochs=1)
    make(config)
    (tmp_path / "t.jsonl").unlink()
    extended(tmp_path, config, 4)
    assert content(tmp_path / "corpus") == content(tmp_path / "long/corpus")
    records = rows_of(tmp_path, "records")
    assert {row["score"] for row in records} == set(range(16, 80))
    assert {row["language"] for row in records} == {"de", None}
    assert all("animal ears" in row["general"] and "hat" not in row["general"] for row in records)


@splits
def test_a_worker_that_adds_epochs_with_another_library_is_refused(tmp_path, monkeypatch):
    config = corpus(tmp_path, **inputs(tmp_path / "in"), render={"sentences": "sentencex"})
    make(config)
    draw = next(steps(prepare_corpus(config, 2)))
    monkeypatch.setattr(libraries, "version", lambda name: "0.1")
    with pytest.raises(PipelineError, match=r"sentencex: a worker has version 0\.1, the driver .*; install the same"):
        draw.work(draw.items[0])
