"""The README and docs/ show what the code accepts: configs, columns, exit codes, messages, commands, links."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipeline.config import EndpointConfig, JobConfig, parse_job
from pipeline.config.base import ConfigPart
from pipeline.prompts import check_captions
from schemas.caption_row import CAPTION_ROW
from schemas.status import Reason

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
GENERATED = {"docs/config.md", "docs/extending.md"}
"""Written by other tools and pages; a link to them is checked by `make docs`."""


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def configs_of(name: str) -> list[dict[str, Any]]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text_of(name), re.DOTALL)]


def test_the_readme_has_at_most_7_kb():
    assert len(README.read_bytes()) <= 7000


@pytest.mark.parametrize(("name", "number"), [("README.md", 1), ("docs/job.md", 2)])
def test_every_documented_job_is_accepted(name, number):
    configs = configs_of(name)
    assert len(configs) == number
    for config in configs:
        check_captions(parse_job(config))


def missing_keys(part: type[ConfigPart], shown: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the keys of a part of the config, and of the parts inside it, that an example does not show."""
    for name, field in part.model_fields.items():
        if name not in shown:
            yield f"{path}{name}"
        elif isinstance(shown[name], Mapping) and issubclass(field.annotation, ConfigPart):
            yield from missing_keys(field.annotation, shown[name], f"{path}{name}.")


def test_the_complete_job_has_every_key():
    assert set(missing_keys(JobConfig, configs_of("docs/job.md")[1])) == {"engine.echo_latency_s"}


def test_the_complete_job_shows_the_defaults():
    small, complete = (parse_job(config) for config in configs_of("docs/job.md"))
    for name in ("sampling", "engine", "images", "quality", "cluster", "logs", "seed"):
        assert getattr(complete, name) == getattr(small, name), name


def test_the_documented_endpoint_is_accepted_and_shows_the_defaults():
    [shown] = configs_of("docs/endpoint.md")
    job = parse_job({**shown, "source": "in", "output": "out", "captions": {"slot": "long", "mode": "descriptive"}})
    assert set(shown["engine"]["endpoint"]) == set(EndpointConfig.model_fields)
    assert job.engine.endpoint == EndpointConfig(urls=tuple(shown["engine"]["endpoint"]["urls"]))


def test_the_documented_columns_are_those_of_the_schema():
    table = text_of("docs/outputs.md").split("| columns | meaning |")[1].split("\n\n")[0]
    named = [
        name
        for line in table.splitlines()
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    ]
    assert sorted(named) == sorted(CAPTION_ROW.names)


def test_the_documented_exit_codes_are_those_of_the_errors():
    from pipeline import errors

    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.PipelineError)
    }
    documented = re.findall(r"^\| (\d) \|", text_of("docs/running.md"), re.MULTILINE)
    assert codes | {0, 3} == {int(code) for code in documented}


def verbs() -> set[str]:
    from jobs.commands import cli

    return set(cli.list_commands(click.Context(cli)))


def test_the_documented_commands_are_those_of_the_command_line():
    table = text_of("docs/running.md").split("| command | what it does |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `joyfleet ([a-z-]+)", table, re.MULTILINE)) == verbs()


def test_every_command_on_a_page_exists():
    called = {
        (page.name, verb)
        for page in PAGES
        for verb in re.findall(r"(?:`|^|bin/|&& |; |# +)joyfleet ([a-z][a-z-]+)\b", page.read_text(), re.MULTILINE)
    }
    assert len(called) > 20
    known = verbs()
    assert sorted((page, verb) for page, verb in called if verb not in known) == []


def test_the_messages_of_troubleshooting_exist():
    sources = "".join(path.read_text() for folder in ("pipeline", "jobs") for path in (ROOT / folder).rglob("*.py"))
    table = text_of("docs/troubleshooting.md").split("| message |")[1].split("\n\n")[0]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) > 5
    for message in messages:
        for part in filter(None, (part.strip(" :") for part in message.split("..."))):
            assert part in sources, part


def test_the_documented_reasons_exist():
    quality = text_of("docs/quality.md").split("| reason | finds | default |")[1].split("\n\n")[0]
    trouble = text_of("docs/troubleshooting.md").split("## Rows are failed or rejected")[1]
    named = re.findall(r"^\| `(\w+)` \|", quality + trouble, re.MULTILINE)
    assert len(named) > 10
    assert set(named) <= {str(reason) for reason in Reason}


def test_every_relative_link_has_a_target():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            path = (page.parent / target).resolve()
            if "://" not in target and str(path.relative_to(ROOT)) not in GENERATED:
                assert path.exists(), f"{page.name}: {target}"
