"""`retry --rows`: rows of committed shards that failed are asked again, and nothing else changes."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.ledger.caption_table import from_parquet, to_parquet, with_contents
from pipeline.ledger.footer import read_footer
from pipeline.standin.demo_data import draw_dataset
from schemas.caption_row import CAPTION_ROW
from tests.cli import finish, run, start, wait_until, write_job
from tests.gate import Gate
from tests.outputs import committed_rows

pytestmark = [pytest.mark.slow, pytest.mark.chaos]  # minutes: `make test` has to stay within ten


def spoil(file: Path, statuses: dict[int, str]) -> None:
    """Make a committed file what it would be if these rows had not ended well."""
    data = file.read_bytes()
    footer, _ = read_footer(data)
    rows = from_parquet(data).to_pylist()
    for row, status in statuses.items():
        text = rows[row]["caption"]
        reason = "engine_killed" if status == "failed" else "empty_caption"
        rows[row] |= {"status": status, "reason": reason, "message": "spoiled", "caption": None}
        rows[row] |= {"rejected_text": text if status == "rejected" else None}
    table = pa.Table.from_pylist(rows, schema=CAPTION_ROW)
    file.write_bytes(to_parquet(table, with_contents(footer, table)))


@pytest.fixture
def output(tmp_path):
    """Two shards of 20 images, one with a failed and a rejected row, and the job that made them."""
    draw_dataset(tmp_path / "in", num_images=40, seed=1, shard_rows=20)
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"echo_latency_s": 0.2})
    assert run(tmp_path, "caption", job).code == 0
    [first, _] = sorted((tmp_path / "out" / "captions").rglob("*.parquet"))
    spoil(first, {3: "failed", 7: "rejected"})
    return tmp_path / "out"


def test_failed_and_rejected_rows_are_asked_again_and_the_rest_stays(tmp_path, output):
    before = committed_rows(output)
    done = run(tmp_path, "retry", str(output), "--rows", "failed")
    assert done.code == 0, done
    assert "1 images in 1 shards have rows that are failed" in done.out
    done = run(tmp_path, "retry", str(output), "--rows", "failed,rejected")
    assert done.code == 0, done
    assert "1 images in 1 shards have rows that are failed or rejected" in done.out
    after = committed_rows(output)
    changed = [index for index, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    assert changed == [3, 7]
    assert [(after[index]["status"], after[index]["attempts"]) for index in changed] == [("ok", 2), ("ok", 2)]
    assert after[3]["seed"] != before[3]["seed"]
    assert run(tmp_path, "verify", str(output)).code == 0
    assert not (output / "staging").exists()
    assert "0 images in 0 shards" in run(tmp_path, "retry", str(output), "--rows", "failed").out


def test_of_two_concurrent_retries_one_reports_that_it_lost(tmp_path, output):
    gate = Gate(tmp_path / "gate")
    words = ("retry", str(output), "--rows", "failed,rejected")
    both = [start(tmp_path, *words, **gate.environment) for _ in range(2)]
    wait_until(lambda: len(gate.holders()) == 2, both[0], "2 retries with batches in flight")
    gate.open()
    done = [finish(process) for process in both]
    assert [item.code for item in done] == [0, 0], done
    assert sum("committed by another run: " in item.out for item in done) == 1, done
    assert run(tmp_path, "verify", str(output)).code == 0


def test_other_statuses_are_refused(tmp_path, output):
    done = run(tmp_path, "retry", str(output), "--rows", "ok")
    assert done.code == 2
    assert "'ok'; allowed: failed, rejected, or both with a comma" in done.err
