"""A job submitted to a real head: its log is shown, its exit code is the driver's, an output has one job at a time."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.standin.demo_data import draw_dataset
from tests.cli import command, finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.head import copy_project, head
from tests.nodes import ENVIRONMENT
from tests.outputs import fragments_of


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A head, and the gate of all jobs on it."""
    gate = Gate(tmp_path_factory.mktemp("head") / "gate")
    gate.open()
    with head(**gate.environment) as address:
        yield address, gate


@pytest.fixture
def server(served):
    return served[0]


@pytest.fixture
def gate(served):
    """A closed gate; open at the end, for the next test."""
    served[1].close()
    yield served[1]
    served[1].open()


@pytest.fixture
def world(tmp_path):
    """A checkout, beside which the source and the output lie."""
    return copy_project(tmp_path / "checkout")


def write(world: Path, num_images=60, **engine) -> tuple[str, Path]:
    draw_dataset(world.parent / "in", num_images=num_images, seed=3, shard_rows=num_images // 3)
    output = world.parent / "out"
    job = write_job(world, world.parent / "in", output, own_ray=False, engine=engine, cluster={"drain_timeout_s": 20})
    return job, output


def slow_run(world, server, gate, *, stdin=None):
    """Submit a run, which takes minutes once the gate is open; wait for its first fragments."""
    _, output = write(world, num_images=300, echo_latency_s=4.0, batches_in_flight=1)
    env = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(world)}
    process = subprocess.Popen(
        command("submit", "job.yaml", "--address", server),
        cwd=world,
        env=env,
        text=True,
        stdin=stdin or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    gate.let(2)
    wait_until(lambda: len(fragments_of(output)) == 2 and gate.held() == 1, process, "2 fragments and one in flight")
    return process, output


def job_of(text: str) -> str:
    return next(line.split()[2] for line in text.splitlines() if line.startswith("joyfleet: job "))


def ray_job(server: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(Path(sys.executable).parent / "ray"), "job", *words],
        env={**os.environ, **ENVIRONMENT, "RAY_API_SERVER_ADDRESS": server},
        text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_a_shard_in_quarantine_ends_the_submit_with_the_drivers_3(world, server):
    write(world)
    (world.parent / "in" / "broken.parquet").write_bytes(b"no parquet at all")
    done = run(world, "submit", "job.yaml", "--address", server, **ENVIRONMENT)
    assert done.code == 3, done
    assert "quarantined: broken.parquet" in done.out
    assert "FAILED, exit code 3" in done.err


@pytest.mark.long
def test_all_done_is_0_and_another_recipe_on_its_output_is_2(world, server):
    _, output = write(world)
    done = run(world, "submit", "job.yaml", "--address", server, **ENVIRONMENT)
    assert done.code == 0, done
    assert "60 ok" in done.out
    assert run(world, "verify", str(output)).code == 0
    other = run(world, "submit", "job.yaml", "--address", server, "--set", "sampling.temperature=0.1", **ENVIRONMENT)
    assert other.code == 2, other
    assert "bound to recipe" in other.out
    assert job_of(done.err)[:-1] == job_of(other.err)[:-1]


@pytest.mark.long
def test_a_variable_of_the_submitter_reaches_the_driver(world, server):
    write(world)
    done = run(world, "submit", "job.yaml", "--address", server, JOYFLEET_IMAGES__MAX_PIXELS="1", **ENVIRONMENT)
    assert done.code == 1, done
    assert "no caption is ok" in done.out


@pytest.mark.long
def test_a_second_submit_of_a_running_output_says_so_and_a_stop_drains_with_4(world, server, gate):
    process, output = slow_run(world, server, gate)
    second = run(world, "submit", "job.yaml", "--address", server, **ENVIRONMENT)
    assert second.code == 1, second
    assert f"{output}: job " in second.err
    assert "is already submitted for it; follow it with --attach, or stop it with `ray job stop " in second.err
    third = start(world, "submit", "job.yaml", "--address", server, "--attach", **ENVIRONMENT)
    before = set(fragments_of(output))
    job = second.err.split(": job ")[1].split()[0]
    assert ray_job(server, "stop", "--no-wait", job).returncode == 0
    gate.open()
    for follower in (process, third):
        done = finish(follower)
        assert done.code == 4, done
        assert "0 images were in flight and will be requested again. Run the same command again to resume" in done.out
        assert "STOPPED, exit code 4" in done.err
    assert set(fragments_of(output)) > before
    assert (
        run(world, "submit", "job.yaml", "--address", server, "--set", "engine.echo_latency_s=0", **ENVIRONMENT).code
        == 0
    )
    assert run(world, "verify", str(output)).code == 0


@pytest.mark.long
def test_without_a_terminal_an_interrupt_leaves_the_job_running(world, server, gate):
    process, _ = slow_run(world, server, gate)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 4, done
    assert "is still running: the same command with --attach follows it" in done.err
    job = job_of(done.err)
    assert "RUNNING" in ray_job(server, "status", job).stderr + ray_job(server, "status", job).stdout
    gate.open()
    ray_job(server, "stop", job)


@pytest.mark.long
def test_with_a_terminal_an_interrupt_asks_and_stop_stops(world, server, gate):
    ours, theirs = pty.openpty()
    process, _ = slow_run(world, server, gate, stdin=theirs)
    process.send_signal(signal.SIGINT)
    os.write(ours, b"stop\n")
    gate.open()
    done = finish(process)
    assert done.code == 4, done
    assert "stop it, leave it running, or follow it" in done.err
    assert "STOPPED, exit code 4" in done.err
    os.close(ours)
    os.close(theirs)


@pytest.mark.long
def test_the_plain_command_line_of_ray_runs_the_job(world, server):
    _, output = write(world)
    words = ["--working-dir", str(world), "--runtime-env", str(world / "infra" / "runtime-env.yaml")]
    done = ray_job(server, "submit", *words, "--", "python", "-m", "jobs", "caption", "job.yaml")
    assert done.returncode == 0, done
    assert run(world, "verify", str(output)).code == 0


@pytest.mark.long
def test_each_part_of_an_output_is_a_job_of_its_own(world, server, gate):
    _, output = write(world)
    first = start(world, "submit", "job.yaml", "--address", server, "--part", "1/2", **ENVIRONMENT)
    wait_until(lambda: gate.held() > 0, first, "a batch of the first part in hand")
    again = run(world, "submit", "job.yaml", "--address", server, "--part", "1/2", **ENVIRONMENT)
    assert again.code == 1, again
    assert f"{output} part 1 of 2: job " in again.err
    other = start(world, "submit", "job.yaml", "--address", server, "--part", "2/2", **ENVIRONMENT)
    gate.open()
    done = [finish(process) for process in (first, other)]
    assert [end.code for end in done] == [0, 0], done
    assert len({job_of(end.err) for end in done}) == 2
    assert run(world, "verify", str(output)).code == 0
