"""The notebooks that look at what a run left go from top to bottom, in the folder that they stand in."""

import json
from pathlib import Path

import pytest

from pipeline.report.quality_stats import measure_quality, write_report
from pipeline.storage import open_store
from tests.corpus import test_job as corpora
from tests.corpus.outputs import caption_row, write_output

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a checkout would be; its notebooks find `../out`."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def run_cells(name):
    names: dict = {}
    for cell in json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "outputs are stripped before a commit"
            exec("".join(cell["source"]), names)
    return names


def captions():
    """Four images, two slots, one caption of another length than asked, one refused."""
    texts = ("A red boat lies on the beach.", "Two dogs run over the wet sand of a long beach at noon.")
    rows = [caption_row("a.tar", row, slot, texts[row % 2]) for row in range(4) for slot in ("long", "short")]
    for row in rows:
        row["words"] = len(row["caption"].split())
    rows[0] |= {"length_kind": "words", "length_words": 7}
    refused = {"status": "rejected", "reason": "loop", "caption": None, "rejected_text": "no, no, no", "flags": []}
    rows[3] |= refused | {"earlier_reasons": ["loop"]}
    return rows


def test_exploring_with_duckdb_gives_one_row_an_image(folder, capsys):
    write_output(folder / "out/demo", captions())
    names = run_cells("explore_with_duckdb")
    shown = names["images"].fetchall()
    assert len(shown) == 4
    assert names["images"].columns == ["shard", "row", "key", "long", "short"]
    assert "loop" in capsys.readouterr().out


def test_the_quality_review_shows_the_rejected_texts(folder, capsys):
    store = open_store(write_output(folder / "out/demo", captions()))
    write_report(store, measure_quality(store))
    run_cells("review_quality")
    printed = capsys.readouterr().out
    assert "a.tar 1 short loop ['loop'] | no, no, no" in printed
    assert "1 of 8 rows were rejected" in printed


def test_exploring_a_corpus_shows_a_text_of_each_task_and_the_census(folder, capsys):
    url = write_output(folder / "captions", corpora.shards())
    config = corpora.corpus(folder / "out", captions=[corpora.entry(url)], preset="tipo-v1")
    corpora.make(config.model_copy(update={"output": str(folder / "out/corpus-demo")}))
    names = run_cells("explore_a_corpus")
    assert names["seen"] == set(names["texts"]["task"].to_pylist())
    printed = capsys.readouterr().out
    assert "--- counts.parquet" in printed
    assert "⟦" in printed
