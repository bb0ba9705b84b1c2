"""A run that is asked to stop uses its grace: what is in flight is staged, what is complete is committed."""

import signal
import time
import uuid

import pytest

from jobs.progress_line import STARTING_RAY
from jobs.signals import AGAIN
from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_for_drain, wait_until, write_job
from tests.flow.test_corpus import job as corpus_job
from tests.gate import Gate
from tests.outputs import committed_rows, expected, fragments_of, identities, mark
from tests.s3_proxy import Fault, s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture
from tests.signal_sweep import MARK, line, marked, num_left, sweep

pytestmark = pytest.mark.slow


def begin(tmp_path, num_images=120, in_flight=2, **cluster):
    """Start a run; return its job, process and gate when 2 fragments are staged and `in_flight` batches are held."""
    draw_dataset(tmp_path / "in", num_images=num_images, seed=3, shard_rows=60)
    engine, cluster = {"batches_in_flight": in_flight}, {"drain_timeout_s": 60, **cluster}
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine=engine, cluster=cluster)
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "caption", job, **gate.environment)
    gate.let(2)
    wait_until(lambda: len(fragments_of(tmp_path / "out")) == 2, process, "2 fragments")
    wait_until(lambda: gate.held() == in_flight, process, f"{in_flight} batches in flight")
    return job, process, gate


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_batches_in_flight_at_a_signal_are_staged_and_resumed(tmp_path, number):
    job, process, gate = begin(tmp_path)
    before = set(fragments_of(tmp_path / "out"))
    process.send_signal(number)
    wait_for_drain(tmp_path, process)
    gate.open()
    done = finish(process)
    assert done.code == 4, done
    assert done.err.splitlines()[-1].endswith(
        "; 0 images were in flight and will be requested again. Run the same command again to resume"
    )
    assert "SIGTERM handler" not in done.err  # Ray's message when a thread that was left behind starts another Ray
    assert "left        2, of which" in run(tmp_path, "status", str(tmp_path / "out")).out
    after = set(fragments_of(tmp_path / "out")) - before
    assert len(after) >= 2
    marked = mark(sorted(after))
    assert run(tmp_path, "caption", job).code == 0
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
    message = (
        "joyfleet: stopped while planning; no request was sent to a model yet; run the same command again to resume"
    )
    assert done.err.splitlines() == [message]
    assert done.out == ""


@pytest.mark.parametrize(
    ("verb", "number"), [("caption", signal.SIGTERM), ("plan", signal.SIGINT), ("corpus", signal.SIGTERM)]
)
def test_a_signal_while_ray_starts_ends_the_run_with_one_line_and_leaves_nothing(tmp_path, verb, number):
    if verb == "corpus":
        words = ["corpus", corpus_job(tmp_path)]
    else:
        draw_dataset(tmp_path / "in", num_images=60, seed=3, shard_rows=60)
        words = [verb, write_job(tmp_path, tmp_path / "in", tmp_path / "out"), *["--calibrate", "9"] * (verb == "plan")]
    scratch, mark = tmp_path / "scratch", uuid.uuid4().hex
    scratch.mkdir()
    process = start(tmp_path, *words, **{MARK: mark, "TMPDIR": str(scratch), "RAY_TMPDIR": "/tmp"})
    wait_until(lambda: any("gcs_server" in " ".join(item.cmdline()) for item in marked(mark)), process, "a GCS")
    process.send_signal(number)
    done = finish(process)
    assert done.code == 4, done
    (line,) = [line for line in done.err.splitlines() if line != STARTING_RAY]
    # A local Ray starts before the plan is finished.
    assert line.endswith(("; run the same command again", "; run the same command again to resume"))
    assert num_left(mark) == 0
    assert not list(scratch.iterdir())


@pytest.mark.long
def test_one_signal_at_any_moment_ends_a_run_with_4_and_the_next_finishes(tmp_path):
    moments = [0.5 * step for step in range(20)]
    points = sweep(tmp_path, moments, [signal.SIGTERM, signal.SIGINT], jobs=1, resume_every=10)
    assert [line(point) for point in points if point.fault()] == []
    assert any(point.ready and point.code == 4 for point in points)


@pytest.mark.chaos
def test_shards_that_are_complete_within_the_drain_timeout_are_committed(tmp_path):
    _, process, gate = begin(tmp_path, num_images=60, in_flight=6)
    process.send_signal(signal.SIGTERM)
    wait_for_drain(tmp_path, process)
    gate.open()
    done = finish(process)
    assert done.code == 0, done
    assert "2 of 2 committed" in done.out


@pytest.mark.chaos
def test_the_drain_timeout_ends_a_run_whose_engine_does_not_answer(tmp_path):
    _, process, _ = begin(tmp_path, drain_timeout_s=2)
    process.send_signal(signal.SIGTERM)
    since = time.monotonic()
    done = finish(process)
    assert done.code == 4, done
    assert time.monotonic() - since < 20


@pytest.mark.chaos
def test_a_second_signal_ends_the_run_at_once(tmp_path):
    _, process, _ = begin(tmp_path)
    process.send_signal(signal.SIGTERM)
    wait_for_drain(tmp_path, process)
    since = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 4, done
    assert done.err.splitlines()[-1] == f"joyfleet: {AGAIN}"
    assert time.monotonic() - since < 3
