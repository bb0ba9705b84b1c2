"""Reads exports with the loaders of four trainers, and records what they read.

    python -m tests.export.record_trainers FOLDER

FOLDER has checkouts: `sd-scripts` and `musubi-tuner` of kohya-ss, `SimpleTuner` of bghira, `DiffSynth-Studio` of
modelscope. Their code is not part of this repository: `trainer_loaders.json` holds the text files that the forms made,
and what the loaders read of them. `test_trainer_forms.py` compares the files with those of today's export, and what was
read with the captions. A package that only other parts of a trainer need may be missing: it is replaced by a mock.
musubi-tuner needs `toml` and `voluptuous`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import random
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.export import world
from tests.export.world import caption_all, export, files_of, write_tars

RECORDED = Path(__file__).with_name("trainer_loaders.json")
COMMITS = {
    "kohya-ss/sd-scripts": "48d368fa557731ad0488c07304dfeba8c07910eb",
    "bghira/SimpleTuner": "bc8e6ab7738ce457a2ed8eb2d26cadd91c6442cb",
    "kohya-ss/musubi-tuner": "30c658c4f4b0bf05038b3346eff9670259b10fc7",
    "modelscope/DiffSynth-Studio": "fed7b18fac2ed4cb802796eec91970e7659bccde",
}
ROOT = "/data/set"
"""In the recorded files, the folder of the export."""
WEIGHTS = ("long=3", "mode:booru-tags=2")
DRAWS = 300
"""Captions that sd-scripts draws of an image: each of at most 5 lines is missed with a chance of 1e-29."""

TEXTS = (
    "A plain caption.",
    "{a|b} in braces, {{twice}}, } { alone {",
    "first line\nsecond line\r\n\r\nthird\u2028fourth\x85fifth",
    "quotes \" ' and a backslash \\ and <|marks|>",
    "None",
    "1",
    "多言語 キャプション é 😀",
    "# not a comment, and a , comma",
    "  blanks  at\tboth ends  ",
    "||| ;;; __name__ $x %s",
)
"""Captions with everything that a trainer's text file or list may give a meaning to."""


def caption_of(key: str, slot: str) -> str:
    text = TEXTS[int(key[2:]) % len(TEXTS)]
    return text if slot == "long" else f"tag {key}, {text}"


def expected() -> dict[str, Counter[str]]:
    """Return how often each caption of each image must be read, by the key of the image."""
    captions: dict[str, Counter[str]] = {}
    for number in range(len(TEXTS)):
        key = f"00{number:03d}"
        uses = {"long": 3, "tags": 0 if number % 5 == 4 else 2}
        captions[key] = Counter(
            {" ".join(caption_of(key, slot).split()): times for slot, times in uses.items() if times}
        )
    return captions


def exports(folder: Path, root: str | None) -> dict[str, Path]:
    """Export drawn images with `TEXTS` in each form; return the folders."""
    folders: dict[str, Path] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "caption_of", caption_of)
        write_tars(folder / "in", 1, len(TEXTS))
        captioned = caption_all(folder / "in", folder / "out")
    for form in ("sd-scripts", "simpletuner", "musubi", "diffsynth"):
        folders[form] = folder / form
        options = {"image_root": root} if root and form in ("sd-scripts", "musubi") else {}
        export(captioned, folders[form], form, weights=WEIGHTS, **options)
    return folders


def texts_of(folder: Path) -> dict[str, str]:
    """Return the files of an export that are text, by name."""
    return {name: data.decode() for name, data in files_of(folder).items() if not name.lower().endswith(".png")}


class _MockKind(type):
    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock(name=name)


class _Mock(metaclass=_MockKind):
    """A class of a package that is not installed; also a base class, and part of an annotation."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass


class _MockModule(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Mock,), {}) if name[0].isupper() else mock.MagicMock(name=name)


class _Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every package that is not installed as a mock, while a trainer is imported."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        # What an installed package tries to import must stay missing.
        files = (frame.filename for frame in inspect.stack(0)[1:])
        importer = next(file for file in files if not file.startswith("<frozen importlib"))
        if importer.startswith(str(TRAINERS[0])):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _MockModule(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


TRAINERS: list[Path] = [Path("/nowhere")]


@contextmanager
def importing(folder: Path, *packages: str) -> Iterator[None]:
    """Import from a checkout; `packages` are imported without running their `__init__`."""
    finder = _Missing()
    TRAINERS[0] = folder
    sys.path.insert(0, str(folder))
    sys.meta_path.append(finder)
    for name in packages:
        module = types.ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = module
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path.remove(str(folder))


def read_sd_scripts(folder: Path, data: Path) -> dict[str, Any]:
    """Return what sd-scripts draws for each image, by its config."""
    import tomllib

    with importing(folder / "sd-scripts"):
        train_util = importlib.import_module("library.train_util")
    config = tomllib.loads((data / "dataset.toml").read_text())
    general, [dataset] = config["general"], config["datasets"]
    [subset_config] = dataset["subsets"]
    given = {**general, **subset_config}
    names = [name for name in inspect.signature(train_util.DreamBoothSubset).parameters if name not in given]
    off = dict.fromkeys(names) | {"is_reg": False, "cache_info": False, "shuffle_caption": False}
    numbers = dict.fromkeys(
        ("caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate", "token_warmup_step"), 0
    )
    subset = train_util.DreamBoothSubset(**{**off, **numbers, "caption_separator": ",", "keep_tokens": 0, **given})
    loaded = train_util.DreamBoothDataset(
        [subset], True, 1, (64, 64), 1.0, False, 64, 64, 64, False, 1.0, False, 0.0, None, None
    )
    read: dict[str, Any] = {}
    random.seed(0)
    for path, info in sorted(loaded.image_data.items()):
        drawn = Counter(loaded.process_caption(subset, info.caption) for _ in range(DRAWS))
        read[Path(path).name] = {"lines": len(info.caption.split("\n")), "drawn": dict(sorted(drawn.items()))}
    return read


def read_simpletuner(folder: Path, data: Path) -> dict[str, Any]:
    """Return the captions of each image, one of which SimpleTuner draws."""
    with importing(folder / "SimpleTuner", "simpletuner", "simpletuner.helpers"):
        handler = importlib.import_module("simpletuner.helpers.prompts").PromptHandler
    backend = types.SimpleNamespace(exists=lambda path: Path(path).exists(), read=lambda path: Path(path).read_bytes())
    read: dict[str, Any] = {}
    for image in sorted(data.glob("*.png")):
        captions = handler.prepare_instance_prompt_from_textfile(
            str(image), use_captions=True, prepend_instance_prompt=False, data_backend=backend
        )
        read[image.name] = captions if isinstance(captions, list) else [captions]
    return read


def read_musubi(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Return the data sets of musubi-tuner's config with the captions of their images, which are opened."""
    with importing(folder / "musubi-tuner/src", "musubi_tuner"):
        config_utils = importlib.import_module("musubi_tuner.dataset.config_utils")
    generator = config_utils.BlueprintGenerator(config_utils.ConfigSanitizer())
    config = config_utils.load_user_config(str(data / "dataset.toml"))
    blueprint = generator.generate(config, argparse.Namespace(debug_dataset=False), architecture="qi")
    group = config_utils.generate_dataset_group_by_blueprint(blueprint.dataset_group)
    read: list[dict[str, Any]] = []
    for dataset in group.datasets:
        images: dict[str, str] = {}
        for fetch in dataset.datasource:
            path, [image], caption, _ = fetch()
            assert image.size == (8, 8)
            images[Path(path).name] = caption
        read.append({"num_repeats": dataset.num_repeats, "cache": Path(dataset.cache_directory).name, "images": images})
    return read


def read_diffsynth(folder: Path, data: Path) -> list[list[str]]:
    """Return the samples of DiffSynth's data set, whose images are opened."""
    packages = ("diffsynth", "diffsynth.core", "diffsynth.core.data")
    with importing(folder / "DiffSynth-Studio", *packages):
        module = importlib.import_module("diffsynth.core.data.unified_dataset")
    load = module.ToAbsolutePath(str(data)) >> module.LoadImage()
    dataset = module.UnifiedDataset(
        str(data), str(data / "metadata.jsonl"), data_file_keys=("image",), main_data_operator=load
    )
    samples: list[list[str]] = []
    for number in range(len(dataset)):
        assert dataset[number]["image"].size == (8, 8)
        samples.append([dataset.data[number]["image"], dataset[number]["prompt"]])
    return samples


READERS = {
    "sd-scripts": read_sd_scripts,
    "simpletuner": read_simpletuner,
    "musubi": read_musubi,
    "diffsynth": read_diffsynth,
}


def main() -> None:
    """Read all exports and write RECORDED."""
    folder = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as made:
        recorded: dict[str, Any] = {"source": COMMITS, "files": {}, "read": {}}
        for form, data in exports(Path(made), None).items():
            recorded["files"][form] = {name: text.replace(str(data), ROOT) for name, text in texts_of(data).items()}
            recorded["read"][form] = READERS[form](folder, data)
            print(form, "read")
    RECORDED.write_text(json.dumps(recorded, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
