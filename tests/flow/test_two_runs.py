"""Two runs on one output, at once or one back from the dead: both end well, and each row is there once."""

import hashlib
import signal
from pathlib import Path

import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.outputs import committed_rows, expected, fragments_of, identities
from tests.trees import send, tree

pytestmark = pytest.mark.slow

ENGINE = {"batches_in_flight": 2}


def digests(output: Path) -> dict[str, str]:
    files = sorted((output / "captions").rglob("*.parquet"))
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def lost(out: str) -> set[str]:
    prefix = "committed by another run: "
    return {line.removeprefix(prefix) for line in out.splitlines() if line.startswith(prefix)}


def won(out: str) -> int:
    [line] = [line for line in out.splitlines() if line.startswith("this run")]
    return int(line.split()[2])


@pytest.mark.long
def test_two_concurrent_runs_succeed_and_report_what_the_other_committed(tmp_path):
    draw_dataset(tmp_path / "in", num_images=160, seed=2, shard_rows=40)
    output = tmp_path / "out"
    job = write_job(tmp_path, tmp_path / "in", output, engine=ENGINE)
    gate = Gate(tmp_path / "gate")
    both = [start(tmp_path, "caption", job, **gate.environment) for _ in range(2)]
    wait_until(lambda: len(gate.holders()) == 2, both[0], "2 runs with batches in flight")
    gate.open()
    done = [finish(process) for process in both]
    assert [item.code for item in done] == [0, 0], done
    assert identities(committed_rows(output)) == identities_expected(tmp_path, 160)
    assert won(done[0].out) + won(done[1].out) == 4
    for item in done:
        assert len(lost(item.out)) + won(item.out) == 4
    assert not lost(done[0].out) & lost(done[1].out)
    assert run(tmp_path, "verify", str(output)).code == 0


def identities_expected(tmp_path, num_images):
    return identities(
        {"shard": shard, "row": row, "slot": slot} for shard, row, slot in expected(tmp_path / "in", num_images)
    )


@pytest.mark.long
def test_a_run_that_resumes_after_its_work_was_committed_by_another_changes_nothing(tmp_path):
    draw_dataset(tmp_path / "in", num_images=160, seed=2, shard_rows=40)
    output = tmp_path / "out"
    job = write_job(tmp_path, tmp_path / "in", output, engine=ENGINE)
    gate = Gate(tmp_path / "gate")
    zombie = start(tmp_path, "caption", job, **gate.environment)
    gate.let(3)
    wait_until(lambda: len(fragments_of(output)) == 3 and gate.held() == 2, zombie, "3 fragments and 2 in flight")
    stopped = tree(zombie.pid)
    assert send(stopped, signal.SIGSTOP) == len(stopped)
    try:
        assert run(tmp_path, "caption", job).code == 0
        before = digests(output)
        assert len(before) == 4
    finally:
        gate.open()
        send(stopped, signal.SIGCONT)
    done = finish(zombie)
    assert done.code == 0, done
    assert len(lost(done.out)) + won(done.out) == 4
    assert lost(done.out), done.out
    assert digests(output) == before
    assert identities(committed_rows(output)) == identities_expected(tmp_path, 160)
    assert run(tmp_path, "verify", str(output)).code == 0
