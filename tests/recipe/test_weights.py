"""The digest of a model's files identifies its weights."""

import shutil
from pathlib import Path

import pytest

import pipeline
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError
from pipeline.recipe import find_weights, weights

STANDIN = Path(pipeline.__file__).parent / "standin" / "model"
FIRST_EDITION = "1ebf47487a3912ec"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the stand-in, as if it were the package's."""
    shutil.copytree(STANDIN, tmp_path / "standin" / "model")
    monkeypatch.setattr(pipeline, "__file__", str(tmp_path / "__init__.py"))
    return tmp_path / "standin" / "model"


def test_the_stand_in_has_the_digest_that_the_first_edition_recorded_whatever_its_readme_says(package):
    for text in (package.joinpath("README.md").read_text(), "another text"):
        package.joinpath("README.md").write_text(text)
        assert find_weights(ModelConfig(id="standin")).digest == FIRST_EDITION
    package.joinpath("README.md").unlink()
    assert find_weights(ModelConfig(id="standin")).digest == FIRST_EDITION
    text = STANDIN.joinpath("README.md").read_text().replace("tools.standin", "pipeline.standin")
    package.joinpath("README.md").write_text(text)
    assert weights._digest(package) == FIRST_EDITION, "with the README of the first edition"


def test_other_weights_of_the_stand_in_have_another_digest(package):
    with package.joinpath("model.safetensors").open("ab") as file:
        file.write(b"1")
    assert find_weights(ModelConfig(id="standin")).digest != FIRST_EDITION


def test_a_local_folder_is_identified_by_all_of_its_files(package):
    local = ModelConfig(id=str(package))
    before = find_weights(local).digest
    package.joinpath("README.md").write_text("another text")
    assert find_weights(local).digest != before


def test_a_path_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.id: .* is not a folder with a config\.json; allowed: standin"):
        find_weights(ModelConfig(id=str(tmp_path)))
