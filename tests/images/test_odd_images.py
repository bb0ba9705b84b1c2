import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import decode
from schemas.status import Reason
from tests.odd_images import OddImage, build_odd_images, valid_files

SIZE = (384, 384)


@pytest.fixture(scope="module")
def odd_images() -> list[OddImage]:
    return build_odd_images()


def outcome(data: bytes, config: ImagesConfig) -> Reason | None:
    """None for pixels; anything but pixels or a BadImage is raised."""
    try:
        decoded = decode(data, config, SIZE)
    except BadImage as err:
        return Reason(err.reason) if err.message else None
    assert decoded.pixels.shape == (384, 384, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.format in config.formats
    assert decoded.width > 0
    assert decoded.height > 0
    return None


@pytest.mark.slow
def test_every_odd_image_has_its_expected_result(odd_images):
    assert len(odd_images) > 600
    wrong = []
    for case in odd_images:
        result = outcome(case.data, ImagesConfig())
        if case.decodes not in (None, result is None) or (case.reason and case.reason != result):
            wrong.append((case.name, result, case.reason, case.decodes))

    assert not wrong


MEASURE = """
import pickle, sys
from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import decode
cases = pickle.loads(open(sys.argv[1], "rb").read())
# Not ru_maxrss, which begins with the parent's at the fork.
peak = lambda: int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
for name, data in cases:
    before = peak()
    try:
        decode(data, ImagesConfig(), (384, 384))
    except BadImage:
        pass
    if peak() - before > 150:
        print(name, "took", peak() - before, "MiB")
print("peak", peak())
"""


@pytest.mark.slow
def test_no_small_file_takes_much_memory(odd_images, tmp_path):
    small = [(case.name, case.data) for case in odd_images if "20M" not in case.name]
    (tmp_path / "cases").write_bytes(pickle.dumps(small))

    child = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "cases")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )

    lines = child.stdout.splitlines()
    assert lines[:-1] == []
    assert int(lines[-1].removeprefix("peak ")) < 400


def mutate(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 8, 32))):
        place = rng.randrange(min(len(broken), rng.choice((64, 512, 1 << 20))))
        match rng.randrange(6):
            case 0:
                broken[place] ^= 1 << rng.randrange(8)
            case 1:
                words = (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0", b"\x80\0\0\0")
                broken[place : place + 4] = rng.choice(words)
            case 2:
                broken[place] = rng.randrange(256)
            case 3:
                del broken[place : place + rng.randrange(1, 9)]
            case 4:
                broken[place:place] = rng.randbytes(rng.randrange(1, 9))
            case _:
                broken[place:place] = broken[place : place + 64]
        if len(broken) < 2:
            break
    return bytes(broken)


@pytest.mark.slow
def test_random_damage_gives_pixels_or_a_reason():
    rng = random.Random(2026)
    files = list(valid_files().values())
    config = ImagesConfig(max_pixels=20_000_000)

    outcomes = {outcome(mutate(rng.choice(files), rng), config) for _ in range(2_000)}

    assert outcomes >= {None, Reason.TRUNCATED_IMAGE, Reason.UNDECODABLE, Reason.TOO_MANY_PIXELS}
