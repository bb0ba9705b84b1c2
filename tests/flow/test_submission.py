"""The submission of a job to a cluster, and what is refused before: wrong paths, addresses and runtime environments."""

from pathlib import Path

import pytest
import yaml

from pipeline.config import parse_job
from pipeline.errors import ConfigError, PipelineError
from pipeline.flow.job_submission import JobEnd, JobServer, make_submission, next_id

PROJECT = Path(__file__).parents[2]
RUNTIME_ENV = PROJECT / "infra" / "runtime-env.yaml"


def job(output="s3://bucket/out", **cluster):
    return parse_job(
        {
            "source": "s3://bucket/in",
            "output": output,
            "model": "standin",
            "captions": {"slot": "long", "mode": "descriptive"},
            "cluster": cluster,
        }
    )


def make(tmp_path, **changes):
    arguments = {
        "job": job(),
        "job_file": tmp_path / "my jobs" / "job.yaml",
        "overrides": ("model.id=a b",),
        "working_dir": tmp_path,
        "runtime_env": RUNTIME_ENV,
    }
    return make_submission(**{**arguments, **changes})


def test_the_command_is_relative_to_the_folder_and_quoted(tmp_path):
    made = make(tmp_path)
    assert made.entrypoint == "python -m jobs caption 'my jobs/job.yaml' --set 'model.id=a b'"


def test_the_options_of_a_source_that_grows_are_passed_on(tmp_path):
    made = make(tmp_path, options=("--extend", "--follow=60"), overrides=())
    assert made.entrypoint == "python -m jobs caption 'my jobs/job.yaml' --extend --follow=60"


def test_the_drain_timeout_and_the_variables_of_the_submitter_are_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("JOYFLEET_SEED", "7")
    made = make(tmp_path, job=job(drain_timeout_s=100.5))
    wait = made.runtime_env["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert int(wait) >= 100.5 + 20
    assert made.runtime_env["env_vars"]["JOYFLEET_SEED"] == "7"
    assert made.runtime_env["excludes"] == yaml.safe_load(RUNTIME_ENV.read_text())["excludes"]


def test_the_stop_wait_of_the_runtime_env_covers_the_default_drain_timeout():
    wait = yaml.safe_load(RUNTIME_ENV.read_text())["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert int(wait) >= job().cluster.drain_timeout_s + 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"job": job("out/mine")}, "output: found 'out/mine', a relative path"),
        ({"job_file": Path("/elsewhere/job.yaml")}, "is not in the working directory .*, and only that folder is sent"),
        ({"runtime_env": Path("/nowhere.yaml")}, "/nowhere.yaml: cannot be read as YAML"),
    ],
)
def test_a_path_with_another_meaning_on_the_cluster_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, **changes)


def test_a_runtime_env_with_a_working_dir_is_refused(tmp_path):
    file = tmp_path / "env.yaml"
    file.write_text("working_dir: .")
    with pytest.raises(ConfigError, match="working_dir is not allowed in this file"):
        make(tmp_path, runtime_env=file)


def test_a_runtime_env_that_is_not_a_mapping_is_refused(tmp_path):
    file = tmp_path / "env.yaml"
    file.write_text("- pip")
    with pytest.raises(ConfigError, match="found list; allowed: a mapping"):
        make(tmp_path, runtime_env=file)


def test_an_id_is_used_once_and_names_its_output():
    first = next_id("s3://bucket/Photos_V1/", [])
    assert first.startswith("joyfleet-photos-v1-")
    stem = first.removesuffix("-1")
    assert next_id("s3://bucket/Photos_V1/", [first, f"{stem}-9", "joyfleet-photos-v1-00000000-12", ""]) == f"{stem}-10"
    assert next_id("s3://other/Photos_V1/", [])[:-2] != stem


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 1, 1),
        ("FAILED", 3, 3),
        ("FAILED", 4, 4),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 4),
    ],
)
def test_the_exit_code_is_the_drivers(status, driver, code):
    assert JobEnd(status=status, driver_code=driver, message="").exit_code == code


def test_an_address_that_is_not_http_is_refused():
    with pytest.raises(ConfigError, match=r"--address ray://head:10001: not the address of a Ray dashboard"):
        JobServer.connect("ray://head:10001")


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(PipelineError, match=r"http://127.0.0.1:9: no job server answers"):
        JobServer.connect("http://127.0.0.1:9")
