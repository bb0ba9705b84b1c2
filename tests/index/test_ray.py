"""`joyfleet index` as users run it, on Ray: killed, stopped, two at once, and an image that kills its decoder."""

import signal

import pytest

from tests.cli import OWN_RAY, finish, run, start, wait_until
from tests.gate import HOOKS, Gate
from tests.index.world import identities, rows_of
from tests.odd_images import encode, picture
from tests.readers.shards import tar_of
from tests.selection.world import write_tar
from tests.trees import send, tree

pytestmark = [pytest.mark.slow, pytest.mark.long]

SHARDS, ROWS = 12, 20
EVERY_IMAGE = [(f"{shard:02d}.tar", row) for shard in range(SHARDS) for row in range(ROWS)]
RAY = [word for key, value in OWN_RAY.items() for word in ("--set", f"cluster.{key}={value}")]
RAY += ["--set", "cluster.stall_timeout_s=120"]


def source(folder):
    for shard in range(SHARDS):
        write_tar(folder / "in", f"{shard:02d}.tar", rows=ROWS)
    return str(folder / "in")


def committed(folder):
    return {path.name: path.read_bytes() for path in (folder / "index/index").glob("*.parquet")}


def test_a_killed_and_stopped_index_resumes_with_every_image_once(tmp_path):
    words = ("index", source(tmp_path), str(tmp_path / "index"), "--hash", "sha256,phash", "--field", "rating", *RAY)
    gate = Gate(tmp_path / "gate")
    process = start(tmp_path, *words, **gate.environment)
    gate.let(2)
    wait_until(lambda: len(committed(tmp_path)) == 2 and gate.held() > 0, process, "2 shards, and one in work")
    send(tree(process.pid), signal.SIGKILL)
    finish(process)
    before = committed(tmp_path)
    process = start(tmp_path, *words, **gate.environment)
    gate.let(1)
    wait_until(lambda: len(committed(tmp_path)) == 3 and gate.held() > 0, process, "another shard, and one in work")
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped.code == 4, stopped
    assert "run again" in stopped.err
    done = run(tmp_path, *words)
    assert done.code == 0, done
    assert f"{SHARDS} of {SHARDS} indexed, {SHARDS - 3} by this run" in done.out
    assert identities(tmp_path / "index") == EVERY_IMAGE
    assert {name: committed(tmp_path)[name] for name in before} == before
    assert all(row["phash"] is not None and row["metadata"] != "{}" for row in rows_of(tmp_path / "index"))
    verified = run(tmp_path, "verify", str(tmp_path / "index"))
    assert f"{SHARDS * ROWS} index rows: each exactly once" in verified.out
    again = run(tmp_path, *words)
    assert again.code == 0, again
    assert "0 by this run" in again.out


def test_two_runs_at_once_make_one_index(tmp_path):
    words = ("index", source(tmp_path), str(tmp_path / "index"), *RAY)
    gate = Gate(tmp_path / "gate")
    runs = [start(tmp_path, *words, **gate.environment) for _ in range(2)]
    wait_until(lambda: len(gate.holders()) == 2, runs[0], "2 runs that commit")
    gate.open()
    both = [finish(process) for process in runs]
    assert [item.code for item in both] == [0, 0], both
    assert identities(tmp_path / "index") == EVERY_IMAGE
    assert run(tmp_path, "verify", str(tmp_path / "index")).code == 0


def test_an_image_that_kills_its_decoder_is_one_row_with_its_reason(tmp_path):
    images = [(f"{row}.png", encode(picture(60 + row, 50), "PNG")) for row in range(8)]
    images[3] = ("3.png", images[3][1] + b"POISON")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tar_of(images))
    (tmp_path / "in/b.tar").write_bytes(tar_of(images[:3]))
    words = ("index", str(tmp_path / "in"), str(tmp_path / "index"), "--hash", "sha256,phash", *RAY)
    done = run(tmp_path, *words, **HOOKS, JFTEST_POISON="POISON")
    assert done.code == 0, done
    rows = rows_of(tmp_path / "index")
    assert [(row["shard"], row["row"]) for row in rows] == [*(("a.tar", row) for row in range(8)), *(("b.tar", row) for row in range(3))]  # fmt: skip  # noqa: E501
    bad = [row for row in rows if row["reason"]]
    assert [(row["shard"], row["row"], row["reason"]) for row in bad] == [("a.tar", 3, "decoder_killed")]
    assert (bad[0]["width"], bad[0]["phash"]) == (63, None)
