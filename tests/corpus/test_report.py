"""Corpora of an earlier version: reports are read, a killed job is completed, and its report is the same."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config import load_corpus
from pipeline.corpus.report.census import take_census
from pipeline.corpus.report.corpus_report import read_texts
from pipeline.storage import open_store
from tests.corpus.test_job import make
from tests.golden import golden

GOLDEN = Path(__file__).parents[1] / "golden/first/corpus"
"""Written by a version whose report also had the columns `kind` and `has_meta`."""


def test_the_report_of_an_earlier_version_is_read():
    rows = read_texts(open_store(str(GOLDEN)))
    texts = [row for file in GOLDEN.glob("text/**/*.parquet") for row in pq.read_table(file).to_pylist()]
    assert sum(row["rows"] for row in rows) == len(texts) > 0
    assert not {"kind", "has_meta"} & rows[0].keys()


def test_the_commits_of_an_earlier_version_are_summed_up():
    units = sorted(str(file.relative_to(GOLDEN / "parts"))[: -len(".json")] for file in GOLDEN.glob("parts/**/*.json"))
    census = take_census(open_store(str(GOLDEN)), units)
    commits = [json.loads((GOLDEN / f"parts/{unit}.json").read_text()) for unit in units]
    assert sum(row["rows"] for row in census.rows()) == sum(row["rows"] for unit in commits for row in unit["texts"])
    samples = [sample for unit in commits for sample in unit["samples"]]
    assert set(census.examples) == {sample["task"] for sample in samples}
    for task, example in census.examples.items():
        assert example["seed"] == min(sample["seed"] for sample in samples if sample["task"] == task)
    assert not census.measured


def test_a_killed_corpus_of_an_earlier_version_is_completed(tmp_path, monkeypatch):
    folder = golden.copy_of(golden.FIRST, tmp_path / "golden")
    monkeypatch.chdir(folder)  # the sources of the golden job are relative paths
    committed = {file: file.read_bytes() for file in Path(golden.KILLED_CORPUS).glob("parts/**/*.json")}
    assert committed
    make(load_corpus("corpus.yaml", [f"output={golden.KILLED_CORPUS}"]))
    assert {file: file.read_bytes() for file in committed} == committed
    for pattern in ("text/**/*.parquet", "records/**/*.parquet", "report/counts.parquet", "report/tags.parquet"):
        files = list(Path(golden.KILLED_CORPUS).glob(pattern))
        assert files
        for file in files:
            assert pq.read_table(file).equals(
                pq.read_table(Path(golden.CORPUS, file.relative_to(golden.KILLED_CORPUS)))
            )
    killed, whole = (read_texts(open_store(str(folder / name))) for name in (golden.KILLED_CORPUS, golden.CORPUS))
    assert sum(row["rows"] for row in killed) == sum(row["rows"] for row in whole)
