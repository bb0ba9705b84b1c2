"""Damaged bytes of any kind give rows or one clear refusal: no crash, no hang, no more rows than there were files."""

import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage, ShardUnreadable
from pipeline.images import decode
from tests.odd_images import encode, picture
from tests.readers.fuzz import FORMATS, folder_trial, trial
from tests.readers.shards import read, shard_of, tar_of

FILES = [(f"{number}.jpg", bytes([number]) * 700) for number in range(4)] + [("0.txt", b"t")]
LONG = [("n" * 200 + ".jpg", b"1")]
TARS = [
    tar_of(FILES, tarfile.USTAR_FORMAT),
    tar_of(FILES + LONG, tarfile.GNU_FORMAT),
    tar_of(LONG + FILES, tarfile.PAX_FORMAT),
]
IMAGES = [encode(picture(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "remove", "zero"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=20),
    ),
    min_size=1,
    max_size=6,
)


def edited(data, edits):
    data = bytearray(data)
    for kind, place, some in edits:
        at = int(place * len(data))
        match kind:
            case "flip" if data:
                data[at] ^= some[0] or 1
            case "cut":
                data = data[:at]
            case "insert":
                data[at:at] = some
            case "remove":
                del data[at : at + len(some) * 30]
            case "zero":
                data[at : at + len(some)] = bytes(len(data[at : at + len(some)]))
    return bytes(data)


@settings(max_examples=400, deadline=2000)
@given(st.sampled_from(TARS), EDITS)
def test_a_damaged_tar_gives_rows_or_a_refusal(data, edits):
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = read(shard_of(Path(folder, "a.tar"), edited(data, edits)), metadata_fields=("*",))
        except ShardUnreadable:
            return
    assert len(rows) <= 40


@settings(max_examples=400, deadline=2000)
@given(st.sampled_from(IMAGES), EDITS)
def test_a_damaged_image_gives_pixels_or_a_reason(data, edits):
    try:
        decoded = decode(edited(data, edits), ImagesConfig(max_pixels=1_000_000), (32, 32))
    except BadImage:
        return
    assert decoded.pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_hundred_damaged_shards_end_as_rows_or_in_quarantine(tmp_path, kind):
    ends, defects = trial(kind, 100, 1, tmp_path)

    assert (defects, ends.total()) == ([], 100)


def test_a_folder_of_odd_names_is_read(tmp_path):
    assert set(folder_trial(20, 1, tmp_path)) == {"ok"}


@pytest.mark.long
@pytest.mark.parametrize("kind", FORMATS)
def test_3200_damaged_shards_end_as_rows_or_in_quarantine(tmp_path, kind, capsys):
    ends, defects = trial(kind, 3200, 2, tmp_path)

    with capsys.disabled():
        names = ("ok", "failed rows", "quarantined", "defect")
        print(f"\n{kind}: {ends.total():,} damaged shards: {', '.join(f'{ends[name]:,} {name}' for name in names)}")
    assert (defects, ends.total()) == ([], 3200)
