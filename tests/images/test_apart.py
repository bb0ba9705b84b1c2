"""An image that kills the process that decodes it, or is too slow for it, is one bad image."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import IsolatedDecoder, decode
from schemas.status import Reason
from tests.odd_images import encode, picture
from tests.slow_images import slow_jpeg

GOOD = encode(picture(), "PNG")
SIZE = (24, 16)


def test_what_kills_the_decoder_is_named_and_the_next_image_decodes(monkeypatch):
    project = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{project}/tests/hooks:{project}")
    monkeypatch.setenv("JFTEST_POISON", "DEADLY")
    with IsolatedDecoder() as decoder:
        with pytest.raises(BadImage, match=r"died on this image of \d+ bytes, the only one in it") as caught:
            decoder.decode(GOOD + b"DEADLY", ImagesConfig(), SIZE)
        assert caught.value.reason is Reason.DECODER_KILLED
        apart = decoder.decode(GOOD, ImagesConfig(), SIZE)
        with pytest.raises(BadImage) as caught:
            decoder.decode(b"<html>", ImagesConfig(), SIZE)
    assert caught.value.reason is Reason.UNSUPPORTED_FORMAT
    here = decode(GOOD, ImagesConfig(), SIZE)
    assert np.array_equal(apart.pixels, here.pixels)
    assert (apart.format, apart.width, apart.height) == (here.format, here.width, here.height)


SLOW = slow_jpeg(3000)
"""A JPEG of 138 kB that takes half a minute."""
LIMITED = ImagesConfig(timeout_s=0.5)


def test_a_slow_image_ends_at_its_limit_and_the_next_image_decodes():
    with IsolatedDecoder() as decoder:
        with pytest.raises(
            BadImage, match=r"^decode_timeout: JPEG of 13\d+ bytes: not decoded within images\.timeout_s=0\.5 s"
        ) as caught:
            decoder.decode(SLOW, LIMITED, SIZE)
        assert caught.value.reason is Reason.DECODE_TIMEOUT
        assert np.array_equal(
            decoder.decode(GOOD, ImagesConfig(), SIZE).pixels, decode(GOOD, ImagesConfig(), SIZE).pixels
        )


def script(text: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *words], cwd=Path(__file__).parents[2], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_slow_image_ends_the_reader_that_decodes_it_itself(tmp_path):
    (tmp_path / "slow.jpg").write_bytes(SLOW)
    text = (
        "import sys, pathlib; from pipeline.config import ImagesConfig; from pipeline.images import decode_or_exit\n"
        "decode_or_exit(pathlib.Path(sys.argv[1]).read_bytes(), ImagesConfig(timeout_s=0.5), (8, 8)); print('decoded')"
    )
    process = script(text, str(tmp_path / "slow.jpg"))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert "Timeout (0:00:00.500000)!" in err


def test_the_process_apart_ends_with_the_reader_that_was_killed():
    text = (
        "import multiprocessing, time; from pipeline.images.isolated_decoder import _Child\n"
        "if __name__ == '__main__':\n"
        "    child = _Child(); print(multiprocessing.active_children()[0].pid, flush=True); time.sleep(1000)"
    )
    process = script(text)
    child = int(process.stdout.readline())
    os.kill(child, 0)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)  # the child holds its pipes: it ended too
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists():  # until init has reaped it
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_defect_in_the_decoder_process_is_reported_with_its_exit_code(monkeypatch):
    with (
        IsolatedDecoder() as decoder,
        pytest.raises(BadImage, match=r"only one in it \(exit code 1; the worker's log has its tr"),
    ):
        decoder.decode("not bytes", ImagesConfig(), SIZE)  # type: ignore[arg-type]
