"""The notebooks run on what a job leaves."""

import itertools
import json
import re
from pathlib import Path

import pytest

from pipeline.corpus.report.corpus_report import rewrite_card
from pipeline.storage import open_store
from schemas.corpus_row import Task
from tests.corpus.outputs import caption_row, write_output
from tests.corpus.test_job import corpus, entry, make
from tests.export.world import caption_all, write_tars

pytestmark = pytest.mark.slow
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_the_caption_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    write_tars(tmp_path / "in", 2, 10)
    caption_all(tmp_path / "in", tmp_path / "out/demo")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    cells = json.loads((NOTEBOOKS / "look_at_captions.ipynb").read_text())["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["rows"].num_rows == 40
    assert "00000 long descriptive | long of\n00000" in capsys.readouterr().out


def drawn_shapes(folder):
    """Captions of pictures like the demo's, whose tags and words say the same; return their URL."""
    kinds = itertools.product(("red", "green", "blue", "white"), ("circle", "square", "triangle"), ("black", "grey"))
    rows = []
    for row, (colour, shape, ground) in enumerate(kinds):
        tags = [shape, colour, f"{ground} background", "simple background", "flat colour"]
        texts = {"long": f"A {colour} {shape} lies on a {ground} background.", "short": f"A {colour} {shape}."}
        rows += [caption_row("0.tar", row, slot, text, source={"tags": tags}) for slot, text in texts.items()]
    return write_output(folder, rows)


@pytest.mark.parametrize("steps", [150, pytest.param(None, marks=pytest.mark.long, id="as it stands")])
def test_a_small_model_learns_from_a_corpus_and_continues_a_prompt(tmp_path, monkeypatch, steps):
    style = {"tasks": {"all": dict.fromkeys(Task, 0) | {"tag_to_long": 1}}}
    config = corpus(
        tmp_path,
        captions=entry(drawn_shapes(tmp_path / "in")),
        epochs=8,
        split={"validation": 0},
        render={"styles": {"default": style}, "gen_meta": 0},
    )
    make(config.model_copy(update={"output": str(tmp_path / "out/corpus-demo")}))
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    names: dict = {}
    for cell in json.loads((NOTEBOOKS / "train_on_a_corpus.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
        if steps and "parameters" in cell["metadata"].get("tags", ()):
            names["STEPS"] = steps
    losses = names["losses"]
    assert len(losses) == (steps or 300)
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    # Tags are added to those of the prompt, a caption follows, and the model knows where to end.
    form = re.escape(f"<s>{names['prompt']}") + r"(, [a-z ]+)+\nlong: A [a-z ]+\.</s>"
    assert re.fullmatch(form, names["expanded"])
    rewrite_card(open_store(str(tmp_path / "out/corpus-demo")), names["path"].read_bytes(), str(names["path"]))
    card = (tmp_path / "out/corpus-demo/README.md").read_text()
    assert f"| steps | {len(losses)}, 8 texts each |" in card
    assert "<td><b>target: &lt;|very_short|&gt; &lt;|tag_to_long|&gt;<br>tag: circle, black background</b>" in card
