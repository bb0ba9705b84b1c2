"""Settings of a local Ray are refused for a run on an existing cluster, before anything starts."""

import os

import pytest

from jobs.__main__ import main
from pipeline.config import ClusterConfig
from pipeline.errors import ConfigError
from pipeline.flow.ray_env import address_of, prepare_ray_env
from tests.cli import write_job

HEAD = "10.0.0.1:6379"


@pytest.fixture
def environment(monkeypatch):
    """This process's environment, as a copy that a test may change."""
    copy = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    monkeypatch.setattr(os, "environ", copy)
    return copy


@pytest.mark.parametrize("key", ["num_cpus", "object_store_gib", "metrics_port"])
@pytest.mark.parametrize("given", ["config", "environment", "submit"])
def test_a_key_of_a_local_ray_is_refused_wherever_the_address_comes_from(environment, given, key):
    before = dict(environment)
    config = ClusterConfig.model_validate({key: 4, **({"address": HEAD} if given == "config" else {})})
    if given == "environment":
        environment["RAY_ADDRESS"] = before["RAY_ADDRESS"] = HEAD
    with pytest.raises(ConfigError, match=rf"cluster\.{key}=4(\.0)?: .* cluster at {HEAD}.*cluster\.{key}=null"):
        prepare_ray_env(config, job_server=HEAD if given == "submit" else None)
    assert environment == before


def test_all_such_keys_are_named_at_once(environment):
    config = ClusterConfig(address=HEAD, num_cpus=2, metrics_port=8080)
    with pytest.raises(ConfigError, match=r"^cluster\.num_cpus=2, cluster\.metrics_port=8080: "):
        prepare_ray_env(config)


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_local_ray_accepts_keys_of_a_local_ray(environment, address):
    if address is not None:
        environment["RAY_ADDRESS"] = address
    config = ClusterConfig(num_cpus=2, object_store_gib=0.3, metrics_port=8080)
    assert address_of(config) is None
    prepare_ray_env(config)
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64


def test_local_in_the_config_precedes_an_address_of_the_environment(environment):
    environment["RAY_ADDRESS"] = HEAD
    assert address_of(ClusterConfig(address="local", num_cpus=2)) is None
    assert address_of(ClusterConfig(address="10.0.0.2:6379")) == "10.0.0.2:6379"
    assert address_of(ClusterConfig()) == HEAD


@pytest.mark.parametrize(
    "words", [["caption"], ["plan", "--calibrate", "9"], ["submit", "--address", f"http://{HEAD}"]]
)
def test_a_verb_that_would_ignore_them_ends_with_2_and_leaves_nothing(
    environment, monkeypatch, capsys, tmp_path, words
):
    if words[0] != "submit":
        environment["RAY_ADDRESS"] = HEAD
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["joyfleet", words[0], job, *words[1:]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert (
        "cluster.num_cpus=2, cluster.object_store_gib=0.3: only applies to a Ray that the run starts"
        in capsys.readouterr().err
    )
    assert [file.name for file in tmp_path.iterdir()] == ["job.yaml"]
