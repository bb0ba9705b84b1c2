"""`--part K/N`: several drivers caption one output, each its own shards."""

import json
import signal

import pytest
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.config import load_job
from pipeline.errors import ConfigError, OutputMismatch
from pipeline.flow.prepared_job import prepare_job
from pipeline.ledger.parts_record import Part
from pipeline.standin.demo_data import draw_dataset
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.outputs import MARK, committed_rows, expected, fragments_of, identities, mark

NUM_IMAGES = 60


@pytest.fixture
def job_file(tmp_path):
    draw_dataset(tmp_path / "in", num_images=NUM_IMAGES, seed=3, shard_rows=6)
    return write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 4, "batches_in_flight": 2})


def test_the_parts_of_a_job_are_its_shards(job_file):
    job = load_job(job_file)
    parts = [prepare_job(job, part=Part(number, 2)) for number in (1, 2)]
    shards = [{task.shard.path for task in part.tasks} for part in parts]
    assert shards[0].isdisjoint(shards[1])
    assert len(shards[0] | shards[1]) == NUM_IMAGES // 6
    assert [set(part.plan.shards) for part in parts] == shards
    assert f"--part 1/2: {len(shards[0])} of 10 planned shards" in parts[0].remarks
    with pytest.raises(OutputMismatch, match="found --part 1/4"):
        prepare_job(job, part=Part(1, 4))
    whole = prepare_job(job)
    assert len(whole.tasks) == NUM_IMAGES // 6
    assert any("other runs caption this output in 2 parts; this run takes all of them" in it for it in whole.remarks)


def test_a_part_that_follows_is_refused(job_file):
    with pytest.raises(ConfigError, match="--part 1/2 with --follow: a run that follows a source captions all of its"):
        CliRunner().invoke(cli, ["caption", job_file, "--part", "1/2", "--follow", "60"], catch_exceptions=False)


@pytest.mark.long
def test_two_drivers_finish_one_output_together_although_one_is_killed(tmp_path, job_file):
    output, gate = tmp_path / "out", Gate(tmp_path / "gate")
    killed = start(tmp_path, "caption", job_file, "--part", "1/2", **gate.environment)
    gate.let(1)
    wait_until(lambda: len(fragments_of(output)) == 1 and gate.held() > 0, killed, "a fragment, and another in hand")
    other = start(tmp_path, "caption", job_file, "--part", "2/2")
    wait_until(lambda: bool(list((output / "captions").rglob("*.parquet"))), killed, "a shard of the other part")
    killed.send_signal(signal.SIGKILL)
    assert finish(killed).code == -signal.SIGKILL
    done = finish(other)
    assert done.code == 0, done
    shards = {row["shard"] for row in committed_rows(output)}
    assert shards == {shard for shard, _, _ in expected(tmp_path / "in", NUM_IMAGES) if Part(2, 2).has(shard)}
    assert run(tmp_path, "verify", str(output)).code == 1
    staged = mark(fragments_of(output))
    assert staged

    resumed = run(tmp_path, "caption", job_file, "--part", "1/2")
    assert resumed.code == 0, resumed
    rows = committed_rows(output)
    assert sorted(identities(rows).elements()) == sorted(expected(tmp_path / "in", NUM_IMAGES))
    assert {(row["shard"], row["row"]) for row in rows if row["caption"].startswith(MARK)} == staged
    verified = run(tmp_path, "verify", str(output))
    assert verified.code == 0, verified
    state = json.loads(run(tmp_path, "status", str(output), "--json").out)
    assert state["shards"]["committed"] == state["shards"]["planned"] == NUM_IMAGES // 6
    assert sorted(run["part"] for run in state["runs"]) == ["1/2", "1/2", "2/2"]
    assert ", part 1/2: complete" in run(tmp_path, "status", str(output)).out
