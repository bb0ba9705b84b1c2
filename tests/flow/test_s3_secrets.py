"""No credential in anything that a whole job on S3 leaves: objects, logs, terminal, messages of failures."""

from pathlib import Path

import pytest

from pipeline.standin.demo_data import draw_dataset
from pipeline.storage import open_store
from tests.cli import Done, run, write_job
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.chaos]  # minutes: `make test` has to stay within ten

SECRET = "marker-of-a-secret-7d1e"
TOKEN = "marker-of-a-token-9b2f"
CREDENTIALS = {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}


def leaks(folder: Path, *texts: str) -> list[str]:
    """Files below the folder, and texts, that hold a credential."""
    words = [SECRET.encode(), TOKEN.encode()]
    result = [str(file) for file in folder.rglob("*") if file.is_file() and holds(file.read_bytes(), words)]
    return result + [text for text in texts if holds(text.encode(), words)]


def holds(data: bytes, words: list[bytes]) -> bool:
    return any(word in data for word in words)


def said(done: Done) -> tuple[str, str]:
    return done.out, done.err


@pytest.fixture
def photos(s3_environment, tmp_path):  # noqa: F811 - a fixture
    draw_dataset(tmp_path / "drawn", num_images=20, seed=6, shard_rows=10)
    store = open_store("s3://out/secrets/photos")
    for shard in (tmp_path / "drawn").rglob("*.*"):
        store.put(shard.relative_to(tmp_path / "drawn").as_posix(), shard.read_bytes())
    store.put("broken.tar", b"<html>")
    return "s3://out/secrets/photos"


def test_a_whole_job_leaves_no_credential_anywhere(tmp_path, photos):
    output = "s3://out/secrets/captions"
    job = write_job(tmp_path, photos, output)
    done = [run(tmp_path, "caption", job, **CREDENTIALS)]
    assert done[0].code == 3, done
    done += [run(tmp_path, verb, output, **CREDENTIALS) for verb in ("status", "verify", "clean", "unquarantine")]
    store = open_store(output)
    objects = {entry.path: store.get(entry.path) for entry in store.list("")}
    assert {"run.json", "plan.parquet"} < objects.keys()
    words = [SECRET.encode(), TOKEN.encode()]
    assert [path for path, data in objects.items() if holds(data, words)] == []
    assert leaks(tmp_path, *(text for item in done for text in said(item))) == []
    [logs] = [
        line.removeprefix("logs of Ray's workers and vLLM: ") for line in done[0].out.splitlines() if "vLLM:" in line
    ]
    assert leaks(Path(logs).parent) == []


@pytest.mark.parametrize(
    ("source", "output"),
    [("s3://no-such-bucket/photos", "s3://out/x"), ("s3://out/secrets/photos", "s3://no-such-bucket/captions")],
)
def test_a_missing_bucket_is_reported_without_a_credential(tmp_path, photos, source, output):
    done = run(tmp_path, "caption", write_job(tmp_path, source, output), **CREDENTIALS)
    assert done.code in (1, 2), done
    assert "no-such-bucket" in done.err
    assert leaks(tmp_path, *said(done)) == []


def test_refused_credentials_are_reported_and_not_repeated(tmp_path, photos, s3_environment):  # noqa: F811 - a fixture
    job = write_job(tmp_path, photos, "s3://out/secrets/refused")
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"], refuses=True) as (endpoint, _):
        done = run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint, **CREDENTIALS)
    assert done.code in (1, 2), done
    assert "credentials" in done.err
    assert leaks(tmp_path, *said(done)) == []
