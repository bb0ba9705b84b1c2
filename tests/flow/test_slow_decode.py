"""Images that are slow to decode, through the whole flow: each is a failed row, and the others are captioned."""

import pytest

from tests.cli import run, write_job
from tests.flow.test_flow import jpeg, tar_of
from tests.outputs import committed_rows
from tests.slow_images import slow_jpeg

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_images_that_are_slow_to_decode_become_failed_rows(tmp_path):
    (tmp_path / "in").mkdir()
    images = {f"{number:02d}.jpg": jpeg((number, 0, 0)) for number in range(20)}
    images["06.jpg"] = images["13.jpg"] = slow_jpeg(6000)
    tar_of(tmp_path / "in" / "slow.tar", images)
    tar_of(tmp_path / "in" / "other.tar", {"a.jpg": jpeg("red")})
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 4}, images={"timeout_s": 3})
    done = run(tmp_path, "caption", job)
    assert done.code == 0, done
    rows = committed_rows(tmp_path / "out")
    failed = [(row["shard"], row["row"], row["reason"], row["message"]) for row in rows if row["status"] != "ok"]
    message = f"JPEG of {len(images['13.jpg'])} bytes: not decoded within images.timeout_s=3 s"
    assert sorted(failed) == [("slow.tar", row, "decode_timeout", message) for row in (6, 13)]
    assert len(rows) == 21
    assert run(tmp_path, "verify", str(tmp_path / "out")).code == 0
