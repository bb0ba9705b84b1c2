"""A model family is one module and one entry of a table: a toy family runs end to end."""

import json
import re
from pathlib import Path

import pytest

import pipeline
from pipeline.config import parse_job
from pipeline.cost import card_rates, guess_tokens
from pipeline.engines import EngineResponse, EngineStats
from pipeline.engines.sizing import planned_num_seqs
from pipeline.errors import ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.models import FAMILIES, family_of, form_of, generation_names, load_generation
from pipeline.prompts import check_captions
from tests.models import toy_family
from tests.run_in_process import draw_images, run_in_process

SIZES = ((40, 30), (100, 20), (5, 70))


class Measuring:
    """An engine that answers with the shape of the pixels and counts the tokens of the toy layout."""

    async def answer(self, request):
        height, width, _ = request.pixels.shape
        layout = toy_family.Layout()
        tokens = len(layout.encode(request.system, request.prompt)) - 1 + layout.image_tokens(width, height)
        assert (request.pixels[:, :, 0] > 190).all()
        return EngineResponse(
            id=request.id, text=f"It is {width} by {height}.", finish_reason="stop", prompt_tokens=tokens
        )

    async def restart(self):
        raise AssertionError("nothing died")

    def stats(self):
        return EngineStats()

    def close(self):
        pass


def toy_job(tmp_path, **captions):
    (tmp_path / "weights").mkdir(exist_ok=True)
    (tmp_path / "weights/config.json").write_text(json.dumps({"model_type": "toy"}))
    return parse_job(
        {
            "source": str(tmp_path / "source"),
            "output": str(tmp_path / "out"),
            "model": str(tmp_path / "weights"),
            "captions": {"slot": "s", "mode": "rhyme", **captions},
            "engine": {"batch_images": 2},
        }
    )


@pytest.mark.parametrize(
    ("geometry", "shapes"),
    [
        (toy_family.FIXED, ["32 by 48", "32 by 48", "32 by 48"]),
        (toy_family.NativeSize(), ["32 by 16", "64 by 16", "16 by 64"]),
    ],
)
def test_a_toy_family_runs_from_images_to_committed_captions(monkeypatch, tmp_path, geometry, shapes):
    monkeypatch.setitem(FAMILIES, "toy", toy_family.family(geometry))
    draw_images(tmp_path / "source", *SIZES)
    rows = run_in_process(toy_job(tmp_path, length="tiny"), Measuring())
    assert [row["caption"] for row in rows] == [f"It is {shape}." for shape in shapes]
    assert {(row["mode"], row["prompt"], row["system"]) for row in rows} == {
        ("rhyme", "A tiny rhyme.", "You are a toy.")
    }
    assert [(row["width"], row["height"]) for row in rows] == list(SIZES)
    assert all(row["flags"] == [] and row["status"] == "ok" for row in rows)
    recipe = json.loads((tmp_path / "out/run.json").read_text())["recipe"]["fields"]
    assert (recipe["catalog"], recipe["sampling"]["max_tokens"]) == ("7071", 17)
    assert geometry.recipe().items() <= recipe["images"].items()


def test_a_toy_family_is_recognised_sized_and_priced(monkeypatch, tmp_path):
    monkeypatch.setitem(FAMILIES, "toy", toy_family.family(toy_family.FIXED))
    job = toy_job(tmp_path)
    assert family_of(job.model).name == "toy"
    assert (
        planned_num_seqs(job.engine.model_copy(update={"preset": "a10g"}), family_of(job.model).dims, gpu=True) == 256
    )
    assert guess_tokens(job).prompt == 15 + 9 + len("Write a rhyme.")
    assert all(rate.images_per_s > 1000 for rate in card_rates(job, guess_tokens(job)))
    assert check_captions(job) == ["sampling.temperature: 0.6 is JoyFleet's default; the author of toy uses 1"]
    with pytest.raises(ConfigError, match="mode: found 'descriptive'; toy-one has: rhyme"):
        check_job(toy_job(tmp_path, mode="descriptive"))
    monkeypatch.delitem(FAMILIES, "toy")
    with pytest.raises(ConfigError, match=r"no known generation matches '.*weights'"):
        check_job(job)


def test_names_of_generations_modes_and_length_classes_have_one_meaning(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", toy_family.family(toy_family.FIXED))
    assert len(set(generation_names())) == len(generation_names())
    for family in FAMILIES.values():
        modes = {mode.name for name in family.generations for mode in load_generation(name).modes}
        assert set(family.forms) == modes
        assert {mode: form_of(mode) for mode in modes} == family.forms
        classes = {name for generation in family.generations for name in load_generation(generation).length_classes}
        assert classes <= set(family.class_words)


KNOWN_TO_THE_FAMILY_ALONE = re.compile(
    r"JOYCAPTION|begin_of_text|eot_id|header_id|reserved_special_token|vision_tower|(?i:siglip)|LLaVA|Llava|\b(?:384|729|1152|128256)\b"
)


def test_nothing_but_the_family_knows_its_tokens_sizes_and_parts():
    package = Path(pipeline.__file__).parent
    # The stand-in is a model of this family; the rule and the corpus handle texts of models of every kind.
    exempt = (package / "models/joycaption.py", package / "quality/special_tokens.py")
    folders = ("standin", "corpus")
    files = [
        file
        for file in package.rglob("*.py")
        if file not in exempt and file.relative_to(package).parts[0] not in folders
    ]
    result = {
        f"{file.relative_to(package)}: {line.strip()}"
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if KNOWN_TO_THE_FAMILY_ALONE.search(line)
    }
    assert len(files) > 100
    assert result == set()
