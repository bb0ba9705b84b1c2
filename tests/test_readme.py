"""What the README shows is what there is: its configs are accepted, its columns are those of the schema."""

import re
from pathlib import Path

import yaml

from pipeline.config import parse_job
from pipeline.config.job_config import (
    EngineConfig,
    ImagesConfig,
    JobClusterConfig,
    JobConfig,
    SamplingConfig,
    SourceConfig,
)
from pipeline.config.quality_config import QualityConfig, RepairConfig, TagsConfig
from pipeline.prompts import check_captions
from schemas.caption_row import CAPTION_ROW

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
CONFIGS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]


def test_every_config_of_the_readme_is_accepted():
    assert len(CONFIGS) == 2
    for config in CONFIGS:
        check_captions(parse_job(config))


def test_the_complete_example_has_every_key():
    complete = CONFIGS[1]
    assert set(complete) == set(JobConfig.model_fields)
    parts = {
        "source": SourceConfig,
        "sampling": SamplingConfig,
        "engine": EngineConfig,
        "images": ImagesConfig,
        "cluster": JobClusterConfig,
        "quality": QualityConfig,
    }
    for name, part in parts.items():
        assert set(complete[name]) == set(part.model_fields) - {"echo_latency_s"}, name
    assert complete["quality"]["actions"] == QualityConfig().actions
    for name, part in {"tags": TagsConfig, "repair": RepairConfig}.items():
        assert set(complete["quality"][name]) == set(part.model_fields), name


def test_the_complete_example_shows_the_defaults():
    complete = parse_job(CONFIGS[1])
    small = parse_job(CONFIGS[0])
    for name in ("sampling", "engine", "images", "quality", "cluster", "seed"):
        assert getattr(complete, name) == getattr(small, name), name


def test_the_columns_are_those_of_the_schema():
    table = README.split("| columns | what |")[1].split("\n\n")[0]
    named = [
        name
        for line in table.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    ]
    assert sorted(named) == sorted(CAPTION_ROW.names)


def test_the_exit_codes_are_those_of_the_errors():
    from pipeline import errors

    codes = {
        one.exit_code
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.PipelineError)
    }
    assert codes | {0, 3} == {int(code) for code in re.findall(r"^\| (\d) \|", README, re.MULTILINE)}
