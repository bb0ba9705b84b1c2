"""An output is data: it runs no code, contacts no server and reads no file without its caller's consent."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from jobs.commands import cli
from jobs.output import job_of_output, open_output
from pipeline.config import parse_job
from pipeline.errors import ConfigError, StoreError
from pipeline.flow.prepared_job import prepare_job
from pipeline.standin.demo_data import draw_dataset

JOB = {"model": "standin", "captions": {"slot": "long", "mode": "descriptive"}, "engine": {"kind": "echo"}}
SERVER = {"kind": "endpoint", "endpoint": {"urls": ["http://evil:1/v1"], "api_key_env": "AWS_SECRET_ACCESS_KEY"}}


@pytest.fixture
def output(tmp_path):
    """An output that a run has begun."""
    draw_dataset(tmp_path / "photos", num_images=4, seed=1, shard_rows=2)
    prepare_job(parse_job({**JOB, "source": str(tmp_path / "photos"), "output": str(tmp_path / "out")}))
    return tmp_path / "out"


def tamper(output, key, value):
    record = json.loads((output / "run.json").read_text())
    node = record["about"]["job"]
    *parents, last = key.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    (output / "run.json").write_text(json.dumps(record))


def test_an_ordinary_output_is_retried_without_consent(output):
    job = job_of_output(str(output), None, ["sampling.temperature=0.3"])
    assert (job.output, job.sampling.temperature, job.engine.kind) == (str(output), 0.3, "echo")


@pytest.mark.parametrize(
    ("key", "value", "message", "again"),
    [
        ("engine.trust_remote_code", True, "engine.trust_remote_code: True (runs code of the model)", "true"),
        ("engine.trust_remote_code", "yes", "engine.trust_remote_code: True", "true"),
        ("cluster.address", "ray://evil:10001", "cluster.address: ray://evil:10001 (runs the job there)", "local"),
        ("quality.tags.vocabulary", "/etc/passwd", "quality.tags.vocabulary: /etc/passwd (reads this file)", "null"),
        ("model.id", "./model", "model.id: ./model (loads a model from this folder)", "standin"),
        ("model", "/evil/model", "model.id: /evil/model", "standin"),
        (
            "source.urls",
            ["http://evil/x.tar"],
            "source.urls: ['http://evil/x.tar'] (reads from there)",
            "[s3://mine/x]",
        ),
        ("source", "ftp://evil/x.tar", "source.urls: ['ftp://evil/x.tar']", "[s3://mine/x]"),
    ],
)
def test_a_setting_that_needs_consent_is_refused_until_it_is_repeated(output, key, value, message, again):
    tamper(output, key, value)
    with pytest.raises(ConfigError) as caught:
        job_of_output(str(output), None, ["sampling.temperature=0.3"])
    assert "run.json: these settings come from the output and need your consent:\n  " in str(caught.value)
    assert message in str(caught.value)
    assert "(--job job.yaml), or repeat each: --set KEY=VALUE" in str(caught.value)
    said = message.partition(":")[0]
    node = job_of_output(str(output), None, [f"{said}={again}"]).model_dump(mode="json")
    for name in said.split("."):
        node = node[name]
    assert node == yaml.safe_load(again)


def test_a_server_and_a_key_need_consent_each(output):
    tamper(output, "engine", SERVER)
    for words in ([], ["engine.endpoint.urls=[http://mine:1/v1]"], ["engine.endpoint.timeout_s=1"]):
        with pytest.raises(ConfigError, match=r"engine\.endpoint\.api_key_env: AWS_SECRET_ACCESS_KEY"):
            job_of_output(str(output), None, words)
    job = job_of_output(str(output), None, ["engine.endpoint={urls: [http://mine:1/v1]}"])
    assert job.engine.endpoint.urls == ("http://mine:1/v1",)
    assert job.engine.endpoint.api_key_env is None


def test_the_environment_is_consent_too(output, monkeypatch):
    tamper(output, "engine.trust_remote_code", True)
    monkeypatch.setenv("JOYFLEET_ENGINE__TRUST_REMOTE_CODE", "false")
    assert job_of_output(str(output), None, []).engine.trust_remote_code is False


def test_the_caller_s_job_file_replaces_the_config_of_the_output(output, tmp_path):
    tamper(output, "engine", SERVER)
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({**JOB, "source": "s3://mine/x", "output": "elsewhere"}))
    job = job_of_output(str(output), str(file), [])
    assert (job.output, job.engine.kind, job.source.urls) == (str(output), "echo", ("s3://mine/x",))


def test_retry_refuses_before_anything_starts(output):
    tamper(output, "engine.trust_remote_code", True)
    done = CliRunner().invoke(cli, ["retry", str(output), "--rows", "failed"])
    assert isinstance(done.exception, ConfigError)
    assert CliRunner().invoke(cli, ["unquarantine", str(output)]).exit_code == 0


@contextmanager
def listening():
    """Yield the URL of a server, and the paths that it is asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/x.tar", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("words", [["verify"], ["report"], ["export", "--to", "webdataset", "FOLDER"]])
@pytest.mark.parametrize("chained", ["", "simplecache::"])
def test_no_verb_fetches_what_only_the_output_names(output, tmp_path, words, chained):
    words = [str(tmp_path / "exported") if word == "FOLDER" else word for word in words]
    with listening() as (url, asked):
        tamper(output, "source.urls", [chained + url])
        plan = pq.read_table(output / "plan.parquet")
        metadata = pq.read_metadata(output / "plan.parquet").metadata
        urls = pa.array([chained + url] * plan.num_rows, pa.string())
        plan = plan.set_column(plan.column_names.index("url"), plan.schema.field("url"), urls)
        with pq.ParquetWriter(output / "plan.parquet", plan.schema) as writer:
            writer.add_key_value_metadata({k: v for k, v in metadata.items() if k.startswith(b"joyfleet.")})
            writer.write_table(plan)
        done = CliRunner().invoke(cli, [words[0], str(output), *words[1:]])
        assert isinstance(done.exception, ConfigError)
        assert f"would fetch {chained}{url}" in str(done.exception)
        assert "name it: --source URL" in str(done.exception)
        assert asked == []
        assert CliRunner().invoke(cli, ["status", str(output)]).exit_code == 0
        assert CliRunner().invoke(cli, ["clean", str(output)]).exit_code == 0


def test_a_source_that_the_caller_names_is_read(output, tmp_path):
    tamper(output, "source.urls", ["http://evil/x.tar"])
    opened = open_output(str(output), (str(tmp_path / "photos"),))
    assert opened.listed_plan().shards == open_output(str(output)).plan.shards
    done = CliRunner().invoke(cli, ["verify", str(output), "--source", str(tmp_path / "photos")])
    assert "planned, not committed" in done.output


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "gs://bucket/x", "hf://datasets/a/b", "file:///x", "photos", "az://c/x"]
)
def test_ordinary_stores_need_no_consent(output, url):
    tamper(output, "source.urls", [url])
    assert open_output(str(output)).source.urls == (url,)
    assert job_of_output(str(output), None, []).source.urls == (url,)


def test_a_damaged_run_json_is_reported(output):
    tamper(output, "images.max_bytes", "many")
    with pytest.raises(StoreError, match=r"run\.json: damaged, .*\(images\.max_bytes: found 'many'; .*\); restore it"):
        open_output(str(output))
