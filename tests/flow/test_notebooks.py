"""The notebooks run on what a job leaves."""

import json
from pathlib import Path

import pytest

from pipeline.standin.dataset import draw_dataset
from tests.cli import run, write_job
from tests.corpus.outputs import write_output
from tests.corpus.test_job import corpus, entry, make, shards

pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_looking_at_captions_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    draw_dataset(tmp_path / "in", num_images=20, seed=8, shard_rows=10)
    captions = [{"slot": "long", "mode": "descriptive"}, {"slot": "short", "mode": "descriptive", "length": 40}]
    done = run(tmp_path, "caption", write_job(tmp_path, tmp_path / "in", tmp_path / "out/demo", captions=captions))
    assert done.code == 0, done
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    cells = json.loads((NOTEBOOKS / "look_at_captions.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["rows"].num_rows == 40
    assert "| mean colour " in capsys.readouterr().out


@pytest.mark.long
def test_a_small_model_learns_from_a_corpus_and_goes_on_where_a_prompt_ends(tmp_path, monkeypatch):
    url = write_output(tmp_path / "in", shards(2, 60))
    make(corpus(tmp_path / "out", captions=entry(url)))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    names: dict = {}
    for cell in json.loads((NOTEBOOKS / "train_on_a_corpus.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace("../out/corpus-demo", str(tmp_path / "out/corpus"))
            exec(source.replace("STEPS = 300", "STEPS = 40"), names)
    losses = names["losses"]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert len(names["expanded"]) > len(names["prompt"])
