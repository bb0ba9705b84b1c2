"""`caption --follow`: new shards are captioned as they come, an idle round is one listing, a signal ends it with 4."""

import signal
from pathlib import Path
from urllib.parse import unquote

import pytest

from pipeline.storage import open_store
from tests.cli import finish, run, start, wait_for_drain, wait_until, write_job
from tests.flow.test_extend import draw_shards
from tests.gate import Gate
from tests.outputs import committed_rows, identities
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

WAITING = "stopped while waiting for new shards; nothing was in flight; run the same command again to resume"


def num_committed(output: Path) -> int:
    return len(list((output / "captions").rglob("*.parquet")))


@pytest.mark.long
def test_shards_are_captioned_as_they_come_and_a_signal_ends_an_idle_round_with_4(tmp_path):
    draw_shards(tmp_path, 2, 0)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    process = start(tmp_path, "caption", job, "--follow", "1")
    wait_until(lambda: num_committed(tmp_path / "out") == 2, process, "2 shards")
    draw_shards(tmp_path, 3, 2)
    wait_until(lambda: num_committed(tmp_path / "out") == 3, process, "a third shard")
    (tmp_path / "in" / "broken.tar").write_bytes(b"not a tar" * 2000)
    quarantined = tmp_path / "out" / "quarantine" / "broken.tar.json"
    wait_until(quarantined.exists, process, "a shard in quarantine")
    draw_shards(tmp_path, 5, 3)
    wait_until(lambda: num_committed(tmp_path / "out") == 5, process, "two more shards")
    lines = read_until(process, "5 of 6 shards are committed; waiting for new shards, every 1 s")
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 4, done
    assert done.err.splitlines()[-1] == f"joyfleet: {WAITING}"
    assert sum("are now in the plan of this output: generation" in line for line in lines) >= 2, lines
    assert set(identities(committed_rows(tmp_path / "out")).values()) == {1}
    assert run(tmp_path, "verify", str(tmp_path / "out")).code == 3


def read_until(process, text: str) -> list[str]:
    """Read what the process says until it says `text`; return the lines."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"ended before it said {text!r}: {lines}")


@pytest.mark.long
def test_a_signal_drains_a_run_and_ends_it_with_4(tmp_path):
    draw_shards(tmp_path, 2, 0)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 2})
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, "caption", job, "--follow", "1", **gate.environment)
    wait_until(lambda: gate.held() > 0, process, "a batch in flight")
    process.send_signal(signal.SIGTERM)
    wait_for_drain(tmp_path, process)
    gate.open()
    done = finish(process)
    assert done.code == 4, done
    assert done.err.splitlines()[-1].startswith("joyfleet: ")


def test_a_changed_shard_ends_it_by_name(tmp_path, s3_environment):  # noqa: F811 - a fixture
    """The output is done already, so that no Ray is needed; the source is on S3, whose requests are counted."""
    source, output = open_store("s3://out/follow/photos"), open_store("s3://out/follow/captions")
    names = draw_shards(tmp_path, 3, 0)
    for name in names[:2]:
        source.put(name, (tmp_path / "in" / name).read_bytes())
    job = write_job(tmp_path, source.url, output.url)
    from pipeline.config import load_job
    from pipeline.flow.prepared_job import prepare_job
    from pipeline.ledger.layout import committed_path

    prepare_job(load_job(job))
    for name in names[:2]:
        output.put(committed_path(name), b"")
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        process = start(tmp_path, "caption", job, "--follow", "1", AWS_ENDPOINT_URL=endpoint)

        def listings() -> int:
            return sum("list-type" in path and "photos" in path for _, _, path in script.asked)

        read_until(process, "2 of 2 shards are committed; waiting for new shards, every 1 s")
        first, listed = len(script.asked), listings()
        wait_until(lambda: listings() >= listed + 4, process, "idle rounds")
        idle_requests = [(method, path) for _, method, path in script.asked[first:]]
        source.put(names[1], b"other")
        done = finish(process)
    # s3fs looks whether the source is one object before it lists it: a HEAD beside each listing.
    assert {method for method, _ in idle_requests} == {"GET", "HEAD"}
    assert all("follow/photos" in unquote(path) for _, path in idle_requests), idle_requests
    assert not any(name in path for _, path in idle_requests for name in names), idle_requests
    assert done.code == 2, done
    assert f"1 of 2 planned shards have changed: {names[1]} was " in done.err


def test_the_first_plan_waits_for_files_that_are_being_written(tmp_path):
    draw_shards(tmp_path, 2, 0)
    for path in (tmp_path / "in").iterdir():
        path.touch()
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out")
    process = start(tmp_path, "caption", job, "--follow", "300")
    line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert line == ("joyfleet: shards of the source were written a moment ago; waiting for new shards, every 300 s\n")
    assert (done.code, done.err) == (4, f"joyfleet: {WAITING}\n")
    assert not (tmp_path / "out").exists()
