import io
import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import decode, decoding
from schemas.status import Reason
from tests.odd_images import encode, in_mode, picture, png, valid_files

CONFIG = ImagesConfig()
SIZE = (384, 384)
FILES = valid_files()

ORDINARY = sorted(
    name
    for name in FILES
    if name.rpartition("-")[2] not in ("LA", "PA", "RGBA", "I;16", "I;16B", "I", "F", "transparency")
    and "tRNS" not in name
)


def reference(data: bytes, size: tuple[int, int] = SIZE) -> np.ndarray:
    """What JoyCaption's author does, with the conversion put before the resize."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.LANCZOS))


def stretched(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize(SIZE, Image.Resampling.LANCZOS))


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_images_equal_pillow_to_the_last_bit(name):
    decoded = decode(FILES[name], CONFIG, SIZE)

    assert np.array_equal(decoded.pixels, reference(FILES[name]))
    assert decoded.pixels.shape == (384, 384, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.format == ("MPO" if name == "MPO-frames" else name.partition("-")[0].replace("MPO", "JPEG"))


def test_the_size_is_width_then_height():
    data = FILES["PNG-RGB"]

    assert np.array_equal(decode(data, CONFIG, (40, 20)).pixels, reference(data, (40, 20)))
    assert decode(data, CONFIG, (40, 20)).pixels.shape == (20, 40, 3)


def test_an_image_of_the_requested_size_keeps_its_pixels():
    image = picture(30, 20)

    assert np.array_equal(decode(encode(image, "PNG"), CONFIG, (30, 20)).pixels, np.asarray(image))


def test_a_size_may_depend_on_the_size_of_the_upright_image():
    data = encode(Image.new("RGB", (40, 30)), "PNG")
    assert decode(data, CONFIG, lambda width, height: (width // 2, height // 3)).pixels.shape == (10, 20, 3)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "JPEG2000"])
def test_transparent_pixels_show_the_background(file_format):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 8, 4))
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    data = encode(clear, file_format, **options)

    config = ImagesConfig(background=(10, 200, 30))

    pixels = decode(data, config, (8, 8)).pixels
    assert (pixels[:4] == (0, 0, 255)).all()
    assert (pixels[4:] == (10, 200, 30)).all()


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
def test_half_transparent_pixels_are_mixed_with_white(mode):
    image = in_mode(mode)
    data = encode(image, "TIFF")

    rgba = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    expected = stretched(Image.alpha_composite(white, rgba).convert("RGB"))
    difference = decode(data, CONFIG, SIZE).pixels.astype(int) - expected
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", [name for name in FILES if "tRNS" in name and "16" not in name] + ["GIF-transparency"])
def test_transparent_palette_entries_and_levels_show_the_background(name):
    rgba = Image.open(io.BytesIO(FILES[name])).convert("RGBA")
    assert rgba.getextrema()[3][0] == 0
    expected = Image.new("RGB", rgba.size, "white")
    expected.paste(rgba, mask=rgba)

    assert np.array_equal(decode(FILES[name], CONFIG, SIZE).pixels, stretched(expected))


def test_a_transparent_level_of_16_bits_shows_the_background():
    levels = np.full((4, 4), 1000, np.uint16)
    levels[:2] = 40_000
    data = encode(Image.fromarray(levels), "PNG", transparency=40_000)

    pixels = decode(data, ImagesConfig(background=(1, 2, 3)), (4, 4)).pixels

    assert (pixels[:2] == (1, 2, 3)).all()
    assert (pixels[2:] == 4).all()


@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("TIFF", "I")])
def test_16_bit_grey_keeps_its_levels(file_format, mode):
    expected = stretched(picture().convert("L").convert("RGB"))

    assert np.array_equal(decode(encode(in_mode(mode), file_format), CONFIG, SIZE).pixels, expected)


def grey_tiff(bits: int, photometric: int, endian: str, levels: np.ndarray) -> bytes:
    """An uncompressed TIFF; Pillow writes none of 12 bits."""
    height, width = levels.shape
    if bits == 16:
        data = levels.astype(f"{endian}u2").tobytes()
    else:
        packed = "".join(format(level, f"0{bits}b") for level in levels.flat)
        data = int(packed, 2).to_bytes(len(packed) // 8, "big")
    tags = {
        256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data),
    }  # fmt: skip
    entries = b"".join(struct.pack(f"{endian}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    head = {"<": b"II*\0", ">": b"MM\0*"}[endian] + struct.pack(f"{endian}I", 8 + len(data))
    return head + data + struct.pack(f"{endian}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [12, 16])
def test_a_grey_tiff_has_its_own_white(bits, photometric, endian):
    steps = np.arange(16).reshape(2, 8)

    data = grey_tiff(bits, photometric, endian, steps * ((1 << bits) - 1) // 15)

    expected = steps * 17 if photometric else 255 - steps * 17
    assert np.array_equal(decode(data, CONFIG, (8, 2)).pixels[..., 0], expected)


@pytest.mark.parametrize("bits", [10, 14])
def test_a_tiff_that_pillow_does_not_unpack_is_refused(bits):
    error = refused(grey_tiff(bits, 1, "<", np.ones((2, 8), int)))

    assert error.reason == Reason.UNDECODABLE
    assert error.message.startswith("TIFF with a damaged header, or a variant that Pillow does not decode")


@pytest.mark.parametrize("kind", ["icc_profile", "text"])
def test_metadata_above_a_megabyte_cost_no_png(kind):
    image, large = picture(), bytes(range(256)) * (12 << 10)
    info = PngImagePlugin.PngInfo()
    if kind == "text":
        info.add_text("workflow", large.decode("latin-1"), zip=True)
    data = encode(image, "PNG", **({"pnginfo": info} if kind == "text" else {"icc_profile": large}))

    assert np.array_equal(decode(data, CONFIG, image.size).pixels, np.asarray(image))


def test_a_profile_of_bomb_size_is_refused():
    error = refused(encode(picture(), "PNG", icc_profile=bytes(17 << 20)))

    assert error.reason == Reason.UNDECODABLE
    assert "too large for PngImagePlugin.MAX_TEXT_CHUNK" in error.message


def test_every_16_bit_level_is_rounded_to_the_nearest_of_8_bits():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)

    pixels = decode(encode(Image.fromarray(levels), "PNG"), CONFIG, (256, 256)).pixels

    assert np.array_equal(pixels[..., 0], (levels.astype(int) + 128) // 257)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 255.0], [0, 100, 255]),
        ([0.0, 128.0, 1020.0], [0, 32, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("-inf"), float("inf")], [0, 0, 255]),
        ([7e5, 7e5, 7e5], [0, 0, 0]),
        ([-2e38, 0.0, 2e38], [0, 128, 255]),
        ([float("nan"), 3.0, 510.0], [0, 0, 255]),
    ],
)
def test_floats_are_scaled_by_their_range(values, expected):
    data = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")

    assert decode(data, CONFIG, (3, 1)).pixels[0, :, 1].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 7, 255], [0, 7, 255]), ([0, 257, 65535], [0, 1, 255]), ([-100, 0, 100], [0, 128, 255])],
)
def test_32_bit_integers_are_scaled_by_their_range(values, expected):
    data = encode(Image.fromarray(np.array([values], np.int32)), "TIFF")

    assert decode(data, CONFIG, (3, 1)).pixels[0, :, 2].tolist() == expected


# Where the picture's own top left corner lies in the stored pixels, as (bottom, right), and whether the sides swap.
STORED_CORNER = {
    1: (False, False, False), 2: (False, True, False), 3: (True, True, False), 4: (True, False, False),
    5: (False, False, True), 6: (True, False, True), 7: (True, True, True), 8: (False, True, True),
}  # fmt: skip


def rotated_file(orientation: int, file_format: str) -> bytes:
    """Red where the upright picture's top left corner is, stored as a camera would."""
    bottom, right, swapped = STORED_CORNER[orientation]
    width, height = (20, 30) if swapped else (30, 20)
    stored = Image.new("RGB", (width, height))
    left, top = (width - 5 if right else 0), (height - 5 if bottom else 0)
    stored.paste((255, 0, 0), (left, top, left + 5, top + 5))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(stored, file_format, exif=exif)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", STORED_CORNER)
def test_exif_orientation_puts_the_picture_upright(orientation, file_format):
    decoded = decode(rotated_file(orientation, file_format), CONFIG, (30, 20))

    assert (decoded.width, decoded.height) == (30, 20)
    assert (decoded.pixels[:5, :5] == (255, 0, 0)).all()
    assert not decoded.pixels[5:].any()
    assert not decoded.pixels[:, 5:].any()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", STORED_CORNER)
def test_exif_orientation_can_be_left_alone(orientation, file_format):
    config = ImagesConfig(apply_exif_orientation=False)
    bottom, right, swapped = STORED_CORNER[orientation]
    size = (20, 30) if swapped else (30, 20)

    decoded = decode(rotated_file(orientation, file_format), config, size)

    assert (decoded.width, decoded.height) == size
    assert tuple(decoded.pixels[-1 if bottom else 0, -1 if right else 0]) == (255, 0, 0)


@pytest.mark.parametrize("file_format", ["JPEG", "MPO", "WEBP", "AVIF"])
def test_exif_orientation_is_applied_in_every_format(file_format):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(picture(), file_format, exif=exif)

    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(decode(data, CONFIG, SIZE).pixels, stretched(expected))


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_counts(file_format):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)

    assert np.abs(decode(data, CONFIG, (4, 4)).pixels.astype(int) - (200, 0, 0)).max() <= 2


def refused(data: bytes, config: ImagesConfig = CONFIG) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode(data, config, SIZE)
    return caught.value


def test_no_bytes_are_an_empty_file():
    assert str(refused(b"")) == "empty_file: 0 bytes"


def test_too_many_bytes_are_refused_before_decoding():
    error = refused(b"x" * 1001, ImagesConfig(max_bytes=1000))

    assert (error.reason, error.message) == (Reason.TOO_MANY_BYTES, "1001 bytes, more than max_bytes=1000")


def test_the_pixel_limit_includes_its_value():
    data = encode(picture(40, 25), "PNG")

    assert decode(data, ImagesConfig(max_pixels=1000), SIZE).width == 40
    error = refused(data, ImagesConfig(max_pixels=999))
    assert error.reason == Reason.TOO_MANY_PIXELS
    assert "max_pixels=999" in error.message


@pytest.mark.parametrize("max_pixels", [1, 2, 3, 400, 999])
def test_a_smaller_pixel_limit_of_one_call_does_not_outlast_it(max_pixels):
    data = encode(picture(40, 25), "PNG")

    assert refused(data, ImagesConfig(max_pixels=max_pixels)).reason == Reason.TOO_MANY_PIXELS
    assert decode(data, CONFIG, SIZE).height == 25


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"8BPS\0\1" + bytes(20), "PSD"),
        (b"<!doctype html><title>404</title>", "HTML"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"%PDF-1.4", "PDF"),
    ],
)
def test_a_file_of_another_kind_is_named(data, named):
    error = refused(data)

    assert error.reason == Reason.UNSUPPORTED_FORMAT
    assert error.message.startswith(f"looks like {named}; allowed: JPEG, PNG,")


def test_unknown_bytes_are_shown():
    error = refused(b"\x03\x04garbage")

    assert error.reason == Reason.UNSUPPORTED_FORMAT
    assert error.message.startswith(r"starts with b'\x03\x04garbage'; allowed: ")


@pytest.mark.parametrize("name", ["GIF-P", "MPO-frames", "TIFF-RGB", "JPEG2000-RGB", "AVIF-RGB", "WEBP-RGB", "BMP-RGB"])
def test_a_format_that_the_config_leaves_out_is_refused_by_name(name):
    error = refused(FILES[name], ImagesConfig(formats=("JPEG", "PNG")))

    named = name.partition("-")[0]
    assert error.reason == Reason.UNSUPPORTED_FORMAT
    assert error.message == f"looks like {named}; allowed: JPEG, PNG"


def test_mpo_can_be_allowed_without_jpeg():
    config = ImagesConfig(formats=("MPO",))

    assert decode(FILES["MPO-frames"], config, SIZE).format == "MPO"
    assert refused(FILES["JPEG-RGB"], config).message == "looks like JPEG; allowed: MPO"


@pytest.mark.parametrize(
    "name", ["JPEG-RGB", "PNG-RGB", "GIF-P", "BMP-RGB", "WEBP-RGB", "AVIF-RGB", "JPEG2000-RGB", "TIFF-jpeg"]
)
def test_a_cut_image_is_truncated_and_never_guessed(name):
    data = FILES[name]

    for cut in range(len(data) * 6 // 10, len(data) * 9 // 10, 7):
        assert refused(data[:cut]).reason == Reason.TRUNCATED_IMAGE, cut


def test_a_damaged_header_is_undecodable_and_named():
    data = bytearray(FILES["PNG-RGB"])
    data[16:20] = b"\0\0\0\0"

    error = refused(bytes(data))

    assert error.reason == Reason.UNDECODABLE
    assert error.message.startswith("PNG")


@pytest.mark.parametrize("offset", [2**64 - 1, 2**63, 2**40])
def test_an_offset_beyond_any_file_is_a_reason_like_others(offset):
    assert refused(b"II+\0\x08\0\0\0" + offset.to_bytes(8, "little")).reason == Reason.TRUNCATED_IMAGE


def test_a_corrupt_middle_of_a_jpeg_is_accepted():
    data = bytearray(encode(picture(400, 400), "JPEG"))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(range(40))

    assert decode(bytes(data), CONFIG, SIZE).width == 400


def test_a_very_long_line_gives_pixels():
    assert not decode(png(1, 3_000_000, 8, 0), CONFIG, SIZE).pixels.any()


def test_a_side_beyond_the_limit_is_shrunk_by_whole_pixels_first(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_SIDE_PX", 100)
    image, short = picture(250, 60), picture(100, 60)

    pixels = decode(encode(image, "PNG"), CONFIG, SIZE).pixels

    assert np.array_equal(pixels, stretched(image.reduce((3, 1))))
    assert np.array_equal(decode(encode(short, "PNG"), CONFIG, SIZE).pixels, stretched(short))


def test_warnings_of_pillow_are_silenced_in_all_threads_and_only_there():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(3)
    data = encode(picture(), "JPEG", exif=exif)
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(io.BytesIO(data)) as image:
        image.getexif()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                decode(data, CONFIG, (8, 8))
        except BaseException as err:  # noqa: BLE001 - reported to the test
            failures.append(err)

    before = list(warnings.filters)
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert warnings.filters == before
    with pytest.raises(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)
