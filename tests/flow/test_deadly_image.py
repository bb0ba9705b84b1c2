"""An image that kills the process that decodes it costs itself, and neither its shard nor the run; a bug is told."""

import pathlib

import pytest

from tests.cli import run, write_job
from tests.flow.test_flow import jpeg, tar_of
from tests.outputs import committed_rows
from tests.slow_images import slow_jpeg

pytestmark = pytest.mark.slow

POISON = "POISON-OF-DECODERS"


def test_an_image_that_kills_the_reader_becomes_a_failed_row(tmp_path):
    project = pathlib.Path(__file__).parents[2]
    (tmp_path / "in").mkdir()
    images = {f"{number:02d}.jpg": jpeg((number, 0, 0)) for number in range(20)}
    images["13.jpg"] += POISON.encode()
    tar_of(tmp_path / "in" / "deadly.tar", images)
    tar_of(tmp_path / "in" / "other.tar", {"a.jpg": jpeg("red")})
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 4})
    done = run(tmp_path, "caption", job, JFTEST_POISON=POISON, PYTHONPATH=f"{project}/tests/hooks:{project}")
    assert done.code == 0, done
    rows = committed_rows(tmp_path / "out")
    failed = [(row["shard"], row["row"], row["reason"], row["message"]) for row in rows if row["status"] != "ok"]
    [size] = {len(images["13.jpg"])}
    told = f"the process that decodes died of this image of {size} bytes, alone in it"
    assert failed == [("deadly.tar", 13, "decoder_killed", told)]
    assert len(rows) == 21
    assert run(tmp_path, "verify", str(tmp_path / "out")).code == 0


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


@pytest.mark.long
def test_an_error_that_nobody_expects_of_a_repeated_reader_is_told_on_the_terminal(tmp_path):
    project = pathlib.Path(__file__).parents[2]
    (tmp_path / "in").mkdir()
    tar_of(tmp_path / "in" / "a.tar", {f"{number:02d}.jpg": jpeg((number, 0, 0)) for number in range(12)})
    job = write_job(tmp_path, tmp_path / "in", tmp_path / "out", engine={"batch_images": 4})
    hook = {"JFTEST_REPEATED": str(tmp_path / "was here"), "PYTHONPATH": f"{project}/tests/hooks:{project}"}
    done = run(tmp_path, "caption", job, **hook)
    assert done.code == 1, done
    assert "ZeroDivisionError: of a reader that was repeated" in done.err
    assert "a.tar" in done.err
