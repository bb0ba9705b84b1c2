"""The notebooks run on what a job leaves."""

import json
from pathlib import Path

import pytest

from pipeline.standin.dataset import draw_dataset
from tests.cli import run, write_job

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
