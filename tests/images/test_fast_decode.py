"""`images.decode: fast`: large JPEGs are reduced while they are decoded; nothing else about them changes."""

import numpy as np
import pytest
from PIL import Image

from pipeline.config import DecodeMode, ImagesConfig, parse_job
from pipeline.errors import BadImage, ConfigError
from pipeline.flow.prepared_job import check_job
from pipeline.images import IsolatedDecoder, decode
from schemas.status import Reason
from tests.images.test_decode import STORED_CORNER
from tests.odd_images import encode, picture, valid_files

EXACT, FAST = ImagesConfig(), ImagesConfig(decode=DecodeMode.FAST)
SIZE = (96, 96)
FILES = valid_files()
LARGE = picture(1003, 805)
"""More than four times SIZE, and no multiple of 8."""

JOB = {"source": "in", "output": "out", "model": "standin", "captions": {"slot": "s", "mode": "descriptive"}}


def both(data: bytes, size=SIZE):
    return decode(data, EXACT, size), decode(data, FAST, size)


def difference(data: bytes, size=SIZE) -> np.ndarray:
    """In levels; the facts of both must be equal."""
    exact, fast = both(data, size)
    assert (fast.format, fast.width, fast.height) == (exact.format, exact.width, exact.height)
    assert fast.pixels.shape == exact.pixels.shape
    return np.abs(fast.pixels.astype(int) - exact.pixels)


def is_reduced(data: bytes, size=SIZE) -> bool:
    return bool(difference(data, size).any())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_is_reduced_and_stays_close_to_its_exact_pixels(subsampling, progressive):
    data = encode(LARGE, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
    levels = difference(data)
    assert levels.any()
    assert levels.mean() < 1
    assert levels.max() < 40


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_keep_their_colours(mode):
    data = encode(LARGE.convert(mode), "JPEG", quality=90)
    assert is_reduced(data)
    assert difference(data).mean() < 1


def test_the_frames_of_an_mpo_are_jpegs():
    data = encode(LARGE, "MPO", save_all=True, append_images=[LARGE.rotate(180)])
    assert decode(data, FAST, SIZE).format == "MPO"
    assert is_reduced(data)
    assert difference(data).mean() < 1


@pytest.mark.parametrize("orientation", STORED_CORNER)
@pytest.mark.parametrize("apply", [True, False])
def test_orientation_and_size_are_those_of_the_exact_pixels(orientation, apply):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(LARGE, "JPEG", quality=90, exif=exif)
    exact, fast = (
        decode(data, config.model_copy(update={"apply_exif_orientation": apply}), (120, 60)) for config in (EXACT, FAST)
    )
    assert (fast.width, fast.height) == (exact.width, exact.height)
    levels = np.abs(fast.pixels.astype(int) - exact.pixels)
    assert levels.any()
    assert levels.mean() < 1


def test_a_size_may_depend_on_the_size_of_the_upright_original():
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = []

    def size(width, height):
        seen.append((width, height))
        return (40, 50)

    decoded = decode(encode(LARGE, "JPEG", exif=exif), FAST, size)
    assert seen == [(805, 1003)]
    assert decoded.pixels.shape == (50, 40, 3)


def test_the_reduced_image_covers_the_same_area():
    """1,001 columns are 126 at 1/8, of which the last stands for one column; taken whole, it would shift the others."""
    pixels = np.zeros((804, 1001, 3), np.uint8)
    pixels[:, 960:] = 255
    data = encode(Image.fromarray(pixels), "JPEG", quality=95, subsampling="4:4:4")
    levels = difference(data, (60, 48))
    assert levels.any()
    assert levels.mean() < 0.4


@pytest.mark.parametrize(("factor", "reduced"), [(3.9, False), (3.92, True)])
def test_a_jpeg_below_four_times_the_models_side_keeps_its_exact_pixels(factor, reduced):
    # Only one of its sides is too short.
    data = encode(picture(1000, int(SIZE[1] * factor)), "JPEG", quality=90)
    assert is_reduced(data) is reduced


@pytest.mark.parametrize("name", sorted(name for name in FILES if not name.startswith(("JPEG-", "MPO"))))
def test_other_formats_keep_their_exact_pixels(name):
    assert not is_reduced(FILES[name], (4, 4))


def test_a_cut_jpeg_fails_as_before():
    data = encode(LARGE, "JPEG", quality=90)
    with pytest.raises(BadImage) as caught:
        decode(data[: len(data) // 2], FAST, SIZE)
    assert caught.value.reason is Reason.TRUNCATED_IMAGE


def test_the_isolated_decoder_returns_the_same_pixels():
    data = encode(LARGE, "JPEG", quality=90)
    with IsolatedDecoder() as decoder:
        assert np.array_equal(decoder.decode(data, FAST, SIZE).pixels, decode(data, FAST, SIZE).pixels)


def test_a_draft_of_pillow_is_used_and_not_a_full_decode(monkeypatch):
    """The pixels of the whole image are never in memory."""
    sizes = []
    resize = Image.Image.resize

    def recorded(image, *arguments, **options):
        sizes.append(image.size)
        return resize(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    decode(encode(picture(1600, 1600), "JPEG"), FAST, SIZE)
    assert sizes[-1] == (200, 200)


def test_fast_decoding_is_part_of_the_recipe_and_exact_decoding_is_not():
    def images(**config):
        return check_job(parse_job({**JOB, **config}))[0]

    before = images()
    assert images(images={"decode": "exact"}).fingerprint == before.fingerprint
    assert "decode" not in before.fields["images"]
    fast = images(images={"decode": "fast"})
    assert fast.fields["images"]["decode"] == "fast"
    assert fast.fingerprint != before.fingerprint


def test_fast_decoding_without_a_format_that_it_changes_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"decode: found fast with formats PNG, WEBP, which it does not change; allowed: exact, or JPEG or MPO",
    ):
        parse_job({**JOB, "images": {"decode": "fast", "formats": ["PNG", "WEBP"]}})
    with pytest.raises(ConfigError, match=r"images\.decode: found 'quick'"):
        parse_job({**JOB, "images": {"decode": "quick"}})
