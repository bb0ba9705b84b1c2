"""A run that is asked to stop uses its grace: what is in flight is staged, what is complete is committed."""

import signal
import time

import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.outputs import committed_rows, expected, fragments_of, identities, mark
from tests.s3_proxy import Fault, s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

LATENCY_S = 4.0


def begin(tmp_path, num_images=120, **engine):
    """Start a run whose engine is slow, and wait for its first fragment; the output and the process."""
    draw_dataset(tmp_path / "in", num_images=num_images, seed=3, shard_rows=60)
    slow = {"echo_latency_s": LATENCY_S, "batches_in_flight": 2, **engine}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=slow, cluster={"drain_timeout_s": 20})
    process = start(tmp_path, "caption", job)
    wait_until(lambda: len(fragments_of(tmp_path / "out")) >= 2, process, "2 fragments")
    return job, process


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_what_is_in_flight_at_the_signal_is_staged_and_taken_over(tmp_path, number):
    job, process = begin(tmp_path)
    time.sleep(LATENCY_S / 2)  # the next batches are with the engine now, and far from done
    before = set(fragments_of(tmp_path / "out"))
    process.send_signal(number)
    done = finish(process)
    assert done.code == 4, done
    assert "0 images were in flight and are asked again; run the same command again to go on" in done.err
    after = set(fragments_of(tmp_path / "out")) - before
    assert after
    marked = mark(sorted(after))
    assert run(tmp_path, "caption", job, "--set", "engine.echo_latency_s=0").code == 0
    rows = committed_rows(tmp_path / "out")
    assert {(row["shard"], row["row"]) for row in rows if row["caption"].startswith("MARKED ")} == marked
    assert set(identities(rows)) == set(expected(tmp_path / "in", 120))
    assert run(tmp_path, "verify", str(tmp_path / "out")).code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_source_is_listed_ends_the_run_with_one_line(tmp_path, s3_environment, number):  # noqa: F811
    job = write_job(tmp_path, "s3://out/photos", "s3://out/captions")
    server = s3_environment["AWS_ENDPOINT_URL"]
    with s3_proxy(server, share=1.0, kinds=(Fault.STALL,), stall_s=60.0) as (endpoint, script):
        process = start(tmp_path, "caption", job, AWS_ENDPOINT_URL=endpoint)
        wait_until(lambda: bool(script.asked), process, "a request")
        process.send_signal(number)
        done = finish(process)
    assert done.code == 4, done
    told = "joyfleet: stopped while planning; nothing was asked of a model yet; run the same command again to go on"
    assert done.err.splitlines() == [told]
    assert done.out == ""


@pytest.mark.chaos
def test_shards_that_are_complete_within_the_grace_are_committed(tmp_path):
    _, process = begin(tmp_path, num_images=60, batches_in_flight=20)
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 0, done
    assert "2 of 2 committed" in done.out


@pytest.mark.chaos
def test_the_grace_ends_in_time_with_an_engine_that_does_not_answer(tmp_path):
    draw_dataset(tmp_path / "in", num_images=20, seed=3, shard_rows=20)
    stuck = {"echo_latency_s": 1000.0}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=stuck, cluster={"drain_timeout_s": 2})
    process = start(tmp_path, "caption", job)
    time.sleep(15)
    process.send_signal(signal.SIGTERM)
    since = time.monotonic()
    done = finish(process)
    assert done.code == 4, done
    assert time.monotonic() - since < 20


@pytest.mark.chaos
def test_a_second_signal_ends_the_run_at_once(tmp_path):
    _, process = begin(tmp_path, echo_latency_s=6.0)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == -signal.SIGTERM
    assert time.monotonic() - since < 3
