"""A store that fails now and then costs time and nothing else; one that fails for good ends in a clear way."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.standin.demo_data import draw_dataset
from pipeline.storage import open_store
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.outputs import expected
from tests.s3_proxy import Fault, s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.chaos]  # minutes: `make test` has to stay within ten

FAST = {"AWS_MAX_ATTEMPTS": "1"}
"""botocore then leaves the retries to those above it: what fails for good fails soon."""


@pytest.fixture
def photos(tmp_path, s3_environment, request):  # noqa: F811 - a fixture
    """A source of 80 images in 8 shards on the server itself, and the prefix of this test."""
    prefix = request.node.name.split("[")[0]
    draw_dataset(tmp_path / "in", num_images=80, seed=6, shard_rows=10)
    store = open_store(f"s3://out/{prefix}/photos")
    for shard in (tmp_path / "in").rglob("*.*"):
        store.put(shard.relative_to(tmp_path / "in").as_posix(), shard.read_bytes())
    return prefix, s3_environment["AWS_ENDPOINT_URL"]


def rows_of(url: str) -> list[dict]:
    store = open_store(url)
    files = sorted(entry.path for entry in store.list("captions"))
    return [row for file in files for row in pq.read_table(pa.BufferReader(store.get(file))).to_pylist()]


def identities(url: str) -> Counter:
    return Counter((row["shard"], row["row"], row["slot"]) for row in rows_of(url))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_through_a_store_that_fails_in_5_of_100_calls_loses_nothing(tmp_path, photos, seed):
    prefix, server = photos
    output = f"s3://out/{prefix}/captions-{seed}"
    job = write_job(tmp_path, f"s3://out/{prefix}/photos", output, engine={"batch_images": 2, "echo_latency_s": 0.02})
    with s3_proxy(server, share=0.05, seed=seed, stall_s=5.0) as (endpoint, script):
        done = run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint)
        verified = run(tmp_path, "verify", output, AWS_ENDPOINT_URL=endpoint)
    assert done.code == 0, done
    assert verified.code == 0, verified
    assert identities(output) == Counter(expected(tmp_path / "in", 80))
    assert sum(script.counts.values()) >= 5, script
    print(f"{script.num_requests} requests, faults {dict(script.counts)}")


@pytest.mark.parametrize("kind", list(Fault))
def test_each_kind_of_fault_alone_and_often_loses_nothing(tmp_path, photos, kind):
    prefix, server = photos
    output = f"s3://out/{prefix}/{kind.name}"
    job = write_job(tmp_path, f"s3://out/{prefix}/photos", output)
    with s3_proxy(server, share=0.25, seed=1, stall_s=2.0, kinds=(kind,)) as (endpoint, script):
        done = run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint)
    assert done.code == 0, done
    assert identities(output) == Counter(expected(tmp_path / "in", 80))
    assert script.counts[kind] >= 2
    assert run(tmp_path, "verify", output).code == 0


def test_a_shard_that_stays_unreadable_goes_to_quarantine_and_comes_back(tmp_path, photos):
    prefix, server = photos
    output = f"s3://out/{prefix}/captions"
    job = write_job(tmp_path, f"s3://out/{prefix}/photos", output)
    victim = sorted(shard.name for shard in (tmp_path / "in").rglob("*.tar"))[0]
    with s3_proxy(server, broken=f"photos/tar/{victim}") as (endpoint, script):
        script.broken = next(f"photos/{name}" for name in shard_names(tmp_path) if name.endswith(victim))
        done = run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint, **FAST)
        assert done.code == 3, done
        assert "cannot be fetched, 3 tries" in done.out
        assert len(identities(output)) == 70
        script.broken = ""
        assert run(tmp_path, "unquarantine", output).code == 0
        assert run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint).code == 0
    assert identities(output) == Counter(expected(tmp_path / "in", 80))


def shard_names(tmp_path):
    return sorted(path.relative_to(tmp_path / "in").as_posix() for path in (tmp_path / "in").rglob("*.*"))


def test_an_output_that_stays_unwritable_ends_the_run_and_the_next_run_resumes(tmp_path, photos):
    prefix, server = photos
    output = f"s3://out/{prefix}/captions"
    job = write_job(
        tmp_path,
        str(tmp_path / "in"),
        output,
        engine={"batch_images": 2, "batches_in_flight": 2},
    )
    store, gate = open_store(output), Gate(tmp_path / "gate")
    with s3_proxy(server) as (endpoint, script):
        process = start(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint, **FAST, **gate.environment)
        gate.let(4)
        wait_until(lambda: len(list(store.list("staging"))) == 4 and gate.held() > 0, process, "4 fragments")
        script.down = True
        gate.open()
        done = finish(process)
        assert done.code == 1, done
        assert done.err.splitlines()[-1].startswith(f"joyfleet: {output}/"), done.err
        script.down = False
        done = run(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint)
    assert done.code == 0, done
    assert "resumed     0 images" not in done.out
    assert identities(output) == Counter(expected(tmp_path / "in", 80))
