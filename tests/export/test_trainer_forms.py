"""Several captions of an image reach four trainers with their weights: files as their loaders read them.

`record_trainers.py` ran the loaders; `trainer_loaders.json` holds the files that they read, and what they read of them.
"""

import json
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.export import export as export_command
from pipeline.config.export_config import ExportConfig
from pipeline.errors import ConfigError
from pipeline.export.forms import FORMS
from tests.export.record_trainers import DRAWS, RECORDED, ROOT, expected, exports, texts_of
from tests.export.world import caption_all, export, files_of, write_tars
from tests.memory_store import MemoryStore

FACTS = json.loads(RECORDED.read_text())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exports(tmp_path_factory.mktemp("trainers"), ROOT)


def key_of(image: str) -> str:
    return Path(image).stem.rpartition("-")[2]


@pytest.mark.parametrize("form", FACTS["files"])
def test_files_are_those_that_the_trainers_read(exported, form):
    assert texts_of(exported[form]) == FACTS["files"][form]


def test_sd_scripts_draws_each_caption_as_often_as_its_weight_says():
    read = FACTS["read"]["sd-scripts"]
    assert {key_of(image) for image in read} == set(expected())
    for image, found in read.items():
        captions = expected()[key_of(image)]
        assert found["lines"] == captions.total()
        assert set(found["drawn"]) == set(captions)
        for text, number in found["drawn"].items():
            assert number / DRAWS == pytest.approx(captions[text] / captions.total(), abs=0.12)


def test_simpletuner_reads_each_caption_as_often_as_its_weight_says():
    read = FACTS["read"]["simpletuner"]
    assert {key_of(image): Counter(captions) for image, captions in read.items()} == expected()


def test_musubi_repeats_each_caption_as_often_as_its_weight_says():
    read: dict[str, Counter[str]] = {}
    datasets = FACTS["read"]["musubi"]
    assert [(one["cache"], one["num_repeats"]) for one in datasets] == [
        ("captions-long-x3", 3),
        ("captions-tags-x2", 2),
    ]
    for dataset in datasets:
        for image, caption in dataset["images"].items():
            read.setdefault(key_of(image), Counter())[caption] += dataset["num_repeats"]
    assert read == expected()


def test_diffsynth_has_a_sample_for_each_use_of_a_caption():
    read: dict[str, Counter[str]] = {}
    for image, prompt in FACTS["read"]["diffsynth"]:
        read.setdefault(key_of(image), Counter())[prompt] += 1
    assert read == expected()


@pytest.fixture
def captioned(tmp_path):
    write_tars(tmp_path / "in", 2, 3)
    return caption_all(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("form", ["sd-scripts", "simpletuner", "musubi", "diffsynth"])
def test_a_template_is_one_caption_and_a_slot_alone_is_its_own(tmp_path, captioned, form):
    export(captioned, tmp_path / "template", form, template="{tags}. {long}")
    export(captioned, tmp_path / "slot", form, slots=("tags",))
    for name, text in (("template", 'tags of 00000, "é". long of 00000, "é"'), ("slot", 'tags of 00000, "é"')):
        texts = texts_of(tmp_path / name)
        lists = [file for file in texts if file.endswith(".jsonl")]
        if lists:
            captions = [json.loads(line) for file in lists for line in texts[file].splitlines()]
            assert len(captions) == 6
            assert {one.get("caption", one.get("prompt")) for one in captions} >= {text}
        else:
            assert texts["00000.tar-000000-00000.txt"] == text


def test_shards_that_are_captioned_later_are_in_the_lists(tmp_path):
    write_tars(tmp_path / "in", 3, 4)
    for form in ("musubi", "diffsynth"):
        export(caption_all(tmp_path / "in", tmp_path / f"out-{form}", only=1), tmp_path / form, form)
        assert len(files_of(tmp_path / form / "images")) == 4
        export(caption_all(tmp_path / "in", tmp_path / f"out-{form}"), tmp_path / form, form)
        export(caption_all(tmp_path / "in", tmp_path / f"out-{form}"), tmp_path / f"{form}-whole", form)
        whole = texts_of(tmp_path / f"{form}-whole")
        assert {name: text.replace(form, f"{form}-whole") for name, text in texts_of(tmp_path / form).items()} == whole
        assert len(files_of(tmp_path / form / "images")) == 12


def test_the_configs_name_the_folder_as_the_trainer_sees_it(tmp_path, captioned):
    for form, key in (("sd-scripts", "image_dir"), ("musubi", "image_jsonl_file")):
        export(captioned, tmp_path / form, form)
        export(captioned, tmp_path / f"{form}-moved", form, image_root="/mnt/data/")
        local, moved = (
            tomllib.loads((tmp_path / name / "dataset.toml").read_text())["datasets"]
            for name in (form, f"{form}-moved")
        )
        [first, *_], [other, *_] = (
            [subset for one in found for subset in one.get("subsets", [one])] for found in (local, moved)
        )
        assert first[key].startswith(str(tmp_path / form))
        assert other[key] in ("/mnt/data", "/mnt/data/captions-long-x1.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": ("long",)}, r"weight 'long': allowed: SLOT=N or mode:MODE=N with N from 1 to 100"),
        ({"weights": ("long=0",)}, r"weight 'long=0': allowed: SLOT=N or mode:MODE=N with N from 1 to 100"),
        ({"weights": ("long=101",)}, r"weight 'long=101': allowed"),
        ({"weights": ("long=2", "long=3")}, r"weights of long repeat; allowed: each once"),
        (
            {"weights": ("long=2",), "template": "{long}"},
            r"--weight is not honoured beside --template, which makes one",
        ),
    ],
)
def test_weights_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportConfig(to="sd-scripts", **options)


def test_a_weight_of_a_slot_or_mode_that_is_not_exported_is_refused(tmp_path, captioned):
    with pytest.raises(ConfigError, match=r"--weight short=2: no slot 'short' is exported; found: long, tags"):
        export(captioned, tmp_path / "x", "sd-scripts", weights=("short=2",))
    with pytest.raises(ConfigError, match=r"--weight tags=2: no slot 'tags' is exported; found: long"):
        export(captioned, tmp_path / "x", "sd-scripts", weights=("tags=2",), slots=("long",))
    assert not (tmp_path / "x").exists()


def test_a_weight_of_a_mode_that_the_job_does_not_ask_is_refused(tmp_path):
    from tests.corpus.outputs import caption_row, write_output

    output = write_output(tmp_path / "out", [caption_row("0.tar", 0, "long", "A cat.")])
    record = tmp_path / "out/run.json"
    run = json.loads(record.read_text())
    run["about"]["job"] = {
        "source": {"urls": ["in"]},
        "images": {},
        "captions": [{"slot": "long", "mix": [{"mode": "descriptive"}, {"prompt": "Say."}]}],
    }
    record.write_text(json.dumps(run))
    words = [output, str(tmp_path / "x"), "--to", "sd-scripts", "--weight"]
    with pytest.raises(
        ConfigError, match=r"--weight mode:booru-tags=2: the job asks no mode 'booru-tags'; found: custom"
    ):
        CliRunner().invoke(export_command, [*words, "mode:booru-tags=2"], catch_exceptions=False)


def test_a_folder_that_a_trainer_cannot_open_is_refused():
    config = ExportConfig(to="musubi")
    for form in ("musubi", "sd-scripts"):
        with pytest.raises(
            ConfigError, match=rf"--to {form} writes a file with the path of the folder, and the trainer"
        ):
            FORMS[form].check([], MemoryStore("memory://x"), config.model_copy(update={"to": form}))
        FORMS[form].check([], MemoryStore("memory://x"), ExportConfig(to=form, image_root="/data"))


def test_captions_without_a_letter_are_no_line(tmp_path, monkeypatch):
    from tests.export import world

    write_tars(tmp_path / "in", 1, 2)
    monkeypatch.setattr(world, "caption_of", lambda key, slot: " \n " if key == "00000" or slot == "tags" else "A cat.")
    captioned = caption_all(tmp_path / "in", tmp_path / "out")
    export(captioned, tmp_path / "x", "simpletuner")
    assert texts_of(tmp_path / "x") == {"00000.tar-000001-00001.txt": "A cat."}
