"""A source that grows: shards are added on request, every verb reads all generations, and committed files stay."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from jobs.commands import cli
from pipeline.config import load_job
from pipeline.errors import ConfigError, OutputMismatch, PlanExtended
from pipeline.flow import prepared_job
from pipeline.flow.extension import Extension
from pipeline.flow.prepared_job import prepare_job
from pipeline.ledger.shard_plan import claim_plan, extend_plan
from pipeline.standin.demo_data import draw_dataset
from pipeline.storage import open_store
from schemas.shard import Shard
from tests.cli import run, write_job
from tests.outputs import committed_rows, identities
from tests.run_in_process import run_in_process
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

ROWS = 4


def draw_shards(folder: Path, total: int, first: int) -> list[str]:
    """Copy the tars from `first` of a drawn data set of `total` tars into the source; return their names."""
    draw_dataset(folder / "drawn", num_images=2 * total * ROWS, seed=1, shard_rows=ROWS)  # half of it in tars
    drawn = sorted((folder / "drawn" / "tar").iterdir())
    assert len(drawn) == total
    (folder / "in").mkdir(exist_ok=True)
    for path in drawn[first:]:
        shutil.copy(path, folder / "in" / path.name)
    shutil.rmtree(folder / "drawn")
    return [path.name for path in drawn[first:]]


@pytest.fixture
def grown(tmp_path):
    """An output of 3 shards in 2 generations, each captioned; the job, and the names of the added shards."""
    draw_shards(tmp_path, 2, 0)
    job = load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    run_in_process(job)
    before = committed_bytes(tmp_path / "out")
    added = draw_shards(tmp_path, 3, 2)
    prepare_job(job, Extension())
    run_in_process(job)
    assert {path: data for path, data in committed_bytes(tmp_path / "out").items() if path in before} == before
    return job, added


def committed_bytes(output: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (output / "captions").rglob("*.parquet")}


def invoke(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def test_new_shards_are_skipped_with_a_note_until_they_are_asked_for(tmp_path):
    draw_shards(tmp_path, 2, 0)
    job = load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    prepare_job(job)
    [name] = draw_shards(tmp_path, 3, 2)
    prepared = prepare_job(job)
    assert name not in prepared.plan.shards
    assert prepared.remarks[-1] == (
        f"source: 1 shards, such as {name}, are not in the plan of this output: they were added after its last "
        "generation and are skipped; `joyfleet caption JOB --extend` adds them"
    )
    prepared = prepare_job(job, Extension())
    assert [task.shard.path for task in prepared.tasks][-1] == name
    assert prepared.remarks[-1] == (
        f"source: 1 new shards, such as {name}, are now in the plan of this output: generation 1"
    )
    assert prepare_job(job).remarks == prepare_job(job, Extension()).remarks == []


def test_a_first_run_with_extend_plans_everything_at_once(tmp_path):
    draw_shards(tmp_path, 2, 0)
    prepared = prepare_job(load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out")), Extension())
    assert (len(prepared.plan.generations), len(prepared.tasks), prepared.remarks) == (1, 2, [])


def test_a_changed_or_removed_shard_is_refused_by_name_also_with_extend(tmp_path, grown):
    job, [name] = grown
    draw_shards(tmp_path, 4, 3)
    shard = tmp_path / "in" / name
    for change in (lambda: shard.write_bytes(b"other"), shard.unlink):
        change()
        with pytest.raises(OutputMismatch, match=rf"1 of 3 planned shards have changed: {name} (was|is gone)"):
            prepare_job(job, Extension())
    assert len(list((tmp_path / "out" / "plan").iterdir())) == 1


def test_an_output_with_a_limit_is_not_extended(tmp_path):
    draw_shards(tmp_path, 2, 0)
    job = load_job(write_job(tmp_path, {"urls": [str(tmp_path / "in")], "limit": 3}, tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"source.limit: 3: .* is not extended"):
        prepare_job(job, Extension())
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_being_written_waits(tmp_path):
    now = time.time_ns()

    def written(seconds_ago):
        return Shard("a.tar", "a.tar", 1, f"mtime-{now - int(seconds_ago * 1e9)}")

    for shard, settled in (
        (written(1), False),
        (written(-1), False),  # a server's clock that is ahead
        (written(100), True),
        (written(-(10**6)), True),  # a copied time
        (Shard("a.tar", "s3://b/a.tar", 1, "0123"), True),
    ):
        assert bool(Extension(60).settled([shard])) is settled, shard
    draw_shards(tmp_path, 2, 0)
    job = load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    prepare_job(job)
    [name] = draw_shards(tmp_path, 3, 2)
    (tmp_path / "in" / name).touch()
    prepared = prepare_job(job, Extension(3600))
    assert (len(prepared.plan.shards), prepared.remarks) == (
        2,
        [
            f"source: 1 shards, such as {name}, are not in the plan of this output: they were written within the last "
            "3600 s and wait for a later round"
        ],
    )


def test_an_extension_that_was_overtaken_reads_and_captions_nothing(tmp_path, monkeypatch):
    draw_shards(tmp_path, 2, 0)
    job = load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    prepare_job(job)
    draw_shards(tmp_path, 4, 2)
    real = extend_plan

    def overtaken(store, plan, added):
        real(store, plan, added[:1])
        return real(store, plan, added)

    monkeypatch.setattr(prepared_job, "extend_plan", overtaken)
    with pytest.raises(PlanExtended, match=r"added generation 1 .* 1 shards such as .*; this run added none of its 2"):
        prepare_job(job, Extension())


def test_follow_waits_for_its_next_round_after_an_extension_that_was_overtaken(tmp_path, monkeypatch, capsys):
    from jobs import follow

    def overtaken(*_):
        raise PlanExtended("another run has just added generation 1")

    monkeypatch.setattr(follow, "prepare_job", overtaken)
    monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=lambda seconds: slept.append(seconds)))
    slept = []
    job = load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    assert follow._prepare(job, Extension(7)) is None
    follow._wait_for_new_shards(job, None, Extension(7))
    assert slept == [7]
    assert capsys.readouterr().err == (
        "joyfleet: note: another run has just added generation 1\n"
        "joyfleet: another run extends this output; waiting for new shards, every 7 s\n"
    )


def test_status_counts_the_shards_of_all_generations(tmp_path, grown):
    state = json.loads(invoke("status", str(tmp_path / "out"), "--json"))
    assert state["shards"] == {"planned": 3, "committed": 3, "left": 0, "partly_staged": 0, "quarantined": 0}
    assert state["generations"] == [2, 1]
    assert "planned     3 shards in 2 generations (the last added 1), " in invoke("status", str(tmp_path / "out"))


def test_verify_proves_all_generations(tmp_path, grown):
    _, [name] = grown
    last = invoke("verify", str(tmp_path / "out")).splitlines()[-1]
    assert last == (
        "3 of 3 shards committed, 12 images x 1 slots = 12 caption rows, 2 generations of the plan: each exactly once"
    )
    (tmp_path / "out" / "captions" / f"{name}.parquet").unlink()
    assert f"not_committed: {name}: " in invoke("verify", str(tmp_path / "out"), code=1)


def test_clean_keeps_the_generations_and_the_staging_of_added_shards(tmp_path, grown):
    job, [name] = grown
    (tmp_path / "out" / "captions" / f"{name}.parquet").unlink()
    from pipeline.engines import start_engine
    from pipeline.stages.captioning import Caption
    from pipeline.stages.read_batches import read_shard

    prepared = prepare_job(job)
    stage = Caption(prepared.caption_spec, start_engine(prepared.engine_spec), prepared.store)
    [task] = prepared.tasks
    import asyncio

    asyncio.run(stage(next(iter(read_shard(prepared.read_spec, task.shard, task.fragments)))))
    before = sorted(path for path in (tmp_path / "out").rglob("*"))
    assert "0 files removed" in invoke("clean", str(tmp_path / "out"))
    assert sorted(path for path in (tmp_path / "out").rglob("*")) == before


def test_the_report_knows_the_shards_of_all_generations(tmp_path, grown):
    invoke("report", str(tmp_path / "out"), "--page", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "its shard is not in the plan" not in page


def test_an_export_is_continued_with_the_added_shards(tmp_path):
    draw_shards(tmp_path, 2, 0)
    job = load_job(write_job(tmp_path, tmp_path / "in", tmp_path / "out"))
    run_in_process(job)
    words = ("export", str(tmp_path / "out"), str(tmp_path / "exported"), "--to", "jsonl", "--workers", "1")
    invoke(*words)
    data = {path: path.read_bytes() for path in (tmp_path / "exported" / "data").rglob("*") if path.is_file()}
    draw_shards(tmp_path, 3, 2)
    prepare_job(job, Extension())
    run_in_process(job)
    assert "12 of 12 images of 3 shards" in invoke(*words)
    exported = {path: path.read_bytes() for path in (tmp_path / "exported" / "data").rglob("*") if path.is_file()}
    assert len(exported) > len(data)
    assert {path: exported[path] for path in data} == data


def test_an_export_of_another_output_is_still_refused(tmp_path, grown):
    words = ("export", str(tmp_path / "out"), str(tmp_path / "exported"), "--to", "jsonl", "--workers", "1")
    invoke(*words)
    record = tmp_path / "exported" / ".joyfleet" / "export.json"
    stored = json.loads(record.read_text())
    stored["shards"]["other.tar"] = [1, "e"]
    record.write_text(json.dumps(stored))
    with pytest.raises(OutputMismatch, match=r"shards.other.tar: \[1, 'e'\] in the output, not set in this run"):
        invoke(*words)


def test_plan_prices_the_added_shards_on_request(tmp_path, grown):
    job_file = str(tmp_path / "job.yaml")
    draw_shards(tmp_path, 5, 3)
    estimate = json.loads(invoke("plan", job_file, "--json"))
    assert (estimate["left"]["shards"], estimate["resumed"]["shards_done"]) == (0, 3)
    assert estimate["resumed"]["images_done"] == pytest.approx(12, abs=2)
    assert "are not in the plan of this output" in estimate["remarks"][-1]
    estimate = json.loads(invoke("plan", job_file, "--json", "--extend"))
    assert (estimate["left"]["shards"], estimate["resumed"]["shards_done"], estimate["remarks"]) == (2, 3, [])
    assert estimate["left"]["images"] == pytest.approx(8, abs=2)


@pytest.mark.long
def test_extend_captions_the_added_shards_and_requests_no_old_one(tmp_path, s3_environment):  # noqa: F811 - a fixture
    """As seen by the server: the source's old shards and the old captions are listed, and never read."""
    source, output = open_store("s3://out/grow/photos"), open_store("s3://out/grow/captions")
    job = write_job(tmp_path, source.url, output.url)
    names = draw_shards(tmp_path, 4, 0)
    for name in names:
        source.put(name, (tmp_path / "in" / name).read_bytes())
    assert run(tmp_path, "caption", job).code == 0
    before = {entry.path: output.get(entry.path) for entry in output.list("captions")}
    added = draw_shards(tmp_path, 6, 4)
    for name in added:
        source.put(name, (tmp_path / "in" / name).read_bytes())
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        done = run(tmp_path, "caption", job, "--extend", AWS_ENDPOINT_URL=endpoint)
    assert done.code == 0, done
    assert f"2 new shards, such as {added[0]}, are now in the plan of this output: generation 1" in done.err
    assert "6 of 6 committed" in done.out
    paths = [path for _, method, path in script.asked if method in ("GET", "HEAD") and "list-type" not in path]
    assert [path for path in paths if any(name in path for name in names)] == []
    assert {name for name in added for path in paths if name in path} == set(added)
    assert {path: output.get(path) for path in before} == before
    assert run(tmp_path, "verify", output.url).code == 0
    again = run(tmp_path, "caption", job, "--extend")
    assert (again.code, "note: " in again.err) == (0, False), again


@pytest.mark.slow
def test_retry_reads_the_rows_of_all_generations(tmp_path, grown):
    from tests.flow.test_retry import spoil

    _, [name] = grown
    spoil(tmp_path / "out" / "captions" / f"{name}.parquet", {2: "failed"})
    done = run(tmp_path, "retry", str(tmp_path / "out"), "--rows", "failed")
    assert done.code == 0, done
    assert "1 images in 1 shards have rows that are failed" in done.out
    assert {row["status"] for row in committed_rows(tmp_path / "out")} == {"ok"}


@pytest.mark.slow
@pytest.mark.long
def test_of_two_runs_that_extend_at_once_both_or_one_end_well_and_nothing_is_twice(tmp_path):
    from tests.cli import finish, start

    draw_shards(tmp_path, 2, 0)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    assert run(tmp_path, "caption", job).code == 0
    draw_shards(tmp_path, 4, 2)
    both = [finish(process) for process in [start(tmp_path, "caption", job, "--extend") for _ in range(2)]]
    assert sorted(done.code for done in both) in ([0, 0], [0, 1]), both
    losers = [done for done in both if done.code == 1]
    assert all("another run has just added generation 1 (plan/00001.parquet)" in done.err for done in losers)
    assert run(tmp_path, "caption", job, "--extend").code == 0
    assert set(identities(committed_rows(tmp_path / "out")).values()) == {1}
    assert len(committed_rows(tmp_path / "out")) == 4 * ROWS
    plan = pq.read_table(tmp_path / "out" / "plan" / "00001.parquet")
    assert plan.num_rows == 2


def test_a_golden_plan_of_one_generation_can_be_extended(tmp_path):
    from tests.golden import golden

    folder = golden.copy_of(golden.FIRST, tmp_path / "golden")
    store = open_store(str(folder / golden.OUTPUT))
    first = store.get("plan.parquet")
    shards = [*claim_plan_of(store), Shard("new.tar", "new.tar", 1, "e")]
    plan = claim_plan(store, shards)
    assert [shard.path for shard in extend_plan(store, plan, plan.unplanned).shards.values()][-1] == "new.tar"
    assert store.get("plan.parquet") == first


def claim_plan_of(store):
    from pipeline.ledger.shard_plan import read_plan

    return list(read_plan(store).shards.values())
