"""The configs and commands of docs/export.md do what the page says, on a data set of this machine."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.config import load_job
from pipeline.prompts import check_captions
from tests.cli import run
from tests.export.world import write_parquets

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/export.md").read_text()
EXAMPLES = ["hf-dataset", "hf-dataset-alpha"]
LOCAL = ["--set", "source.urls=[in]", "--set", "model={id: standin, generation: %s}", "--set", "engine.kind=echo"]
LOCAL += ["--set", "cluster.num_cpus=2", "--set", "cluster.object_store_gib=0.3"]


def commands(name: str) -> list[list[str]]:
    """The lines of the page's block that captions with this config."""
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if f"{name}.yaml" in block]
    return [shlex.split(line)[1:] for line in block.replace("\\\n", " ").splitlines() if line.startswith("joyfleet")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_config_asks_what_its_generation_knows(name):
    check_captions(load_job(str(ROOT / f"jobs/runs/{name}.yaml")))


@pytest.mark.long
@pytest.mark.parametrize(("name", "generation"), [("hf-dataset", "beta-one"), ("hf-dataset-alpha", "alpha-two")])
def test_the_commands_make_a_data_set_with_captions(tmp_path, monkeypatch, name, generation):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    write_parquets(tmp_path / "in", 2, 3)
    write_parquets(tmp_path / "in", 1, 3, split="test")
    caption, export = commands(name)
    caption[1] = str(ROOT / caption[1])
    local = [word.replace("%s", generation) for word in LOCAL]
    pushed = export.index("--push") if "--push" in export else len(export)

    for words in ([*caption, *local], export[:pushed]):
        done = run(tmp_path, *words)
        assert done.code == 0, done.err

    result = datasets.load_dataset(str(tmp_path / export[2]), cache_dir=str(tmp_path / "cache"))
    assert set(result) == ({"train"} if generation == "alpha-two" else {"train", "test"})
    assert result["train"].column_names == ["image", "label", "im_name", "joy-caption"]
    assert result["train"]["im_name"] == [f"{number}.png" for number in range(6)]
    assert all(result["train"]["joy-caption"])
