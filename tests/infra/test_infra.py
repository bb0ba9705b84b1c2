"""The other ways to a cluster: each file is of the form that its reader asks for, and names only what there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

PROJECT = Path(__file__).parents[2]
INFRA = PROJECT / "infra"
DOCKERFILE = (INFRA / "Dockerfile").read_text()


def check_workflow(file: Path) -> subprocess.CompletedProcess:
    words = ["--builtin-schema", "vendor.github-workflows", str(file)]
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *words], text=True, capture_output=True, check=False
    )


def test_the_workflow_is_one(tmp_path):
    done = check_workflow(INFRA / "ci" / "caption.yml")
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "broken.yml"
    broken.write_text((INFRA / "ci" / "caption.yml").read_text().replace("runs-on:", "run-on:"))
    assert check_workflow(broken).returncode == 1


def test_the_workflow_calls_verbs_and_options_that_there_are():
    from jobs.commands import cli

    steps = yaml.safe_load((INFRA / "ci" / "caption.yml").read_text())["jobs"]["caption"]["steps"]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    called = [re.search(r"joyfleet (\w+)(.*)", line) for line in lines if ".venv/bin/joyfleet" in line]
    assert [item[1] for item in called] == ["submit", "verify", "quality"]
    for item in called:
        known = {option for parameter in cli.get_command(None, item[1]).params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", item[2])) <= known


def test_the_aws_cluster_is_of_rays_form_and_keeps_tasks_off_the_head():
    cluster = yaml.safe_load((INFRA / "aws" / "cluster.yaml").read_text())
    schema = json.loads(Path(ray.__file__).parent.joinpath("autoscaler", "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**cluster, "max_worker": 1}, schema)
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["replicas"]["min_workers"] == 0
    assert sum(item.get("max_workers", 0) for item in types.values()) == cluster["max_workers"]


def test_the_image_is_pinned_and_its_user_is_not_root():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-.+", base), base
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)[-1] == "1000"


def test_the_image_is_built_by_the_commands_of_the_readme():
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.findall(r"^RUN make (\w+) KIND", DOCKERFILE, re.MULTILINE)
    assert targets == ["setup"]
    assert re.search(r"^setup:", makefile, re.MULTILINE)
    assert "make setup KIND=gpu" in (PROJECT / "README.md").read_text()


def test_what_the_image_copies_is_there_and_sent():
    sent = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    }
    assert copied == sent
    for name in copied:
        assert (PROJECT / name).exists(), name
    packages = re.search(r"include = \[(.*)\]", (PROJECT / "pyproject.toml").read_text())[1]
    assert set(re.findall(r'"(\w+)\*"', packages)) <= copied


def test_the_image_has_what_the_manifests_call():
    manifest = (INFRA / "kuberay" / "base" / "cluster.yaml").read_text()
    for program, package in (("pgrep", "procps"), ("wget", "wget")):
        assert program in manifest
        assert package in DOCKERFILE


def test_the_page_on_clusters_names_what_there_is():
    from jobs.commands import cli

    page = (PROJECT / "docs" / "cluster.md").read_text()
    for target in re.findall(r"\]\((\.\./[^)]+)\)", page):
        assert (PROJECT / "docs" / target).exists(), target
    known = {option for parameter in cli.get_command(None, "submit").params for option in parameter.opts}
    for line in re.findall(r"^joyfleet submit .*", page, re.MULTILINE):
        assert set(re.findall(r"--[a-z-]+", line)) <= known
    for name in re.findall(r"infra/kuberay/(\S+)", page):
        assert (INFRA / "kuberay" / name).is_dir(), name
    plain = re.search(r"^ray job submit .* -- python -m (.*)", page, re.MULTILINE)
    assert plain[1].split()[:2] == ["jobs", "caption"]
