"""The header says what decoding says, without decoding."""

import io
import struct
import zlib

import pytest
from PIL import Image, ImageFile

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import IsolatedDecoder, decode, read_header
from tests.odd_images import build_odd_images, encode, picture

SIDEWAYS = 6


def both(data, config):
    """The header, and what `decode` says about the same bytes; the reason where there is none."""
    results = []
    for read in (lambda: read_header(data, config), lambda: decode(data, config, (8, 8))):
        try:
            result = read()
            results.append((result.format, result.width, result.height))
        except BadImage as err:
            results.append(err.reason)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("turns", [True, False])
def test_every_odd_image_that_decodes_has_the_header_of_its_pixels(turns):
    config = ImagesConfig(apply_exif_orientation=turns)
    pairs = [(case.name, *both(case.data, config)) for case in build_odd_images()]
    decoded = [pair for pair in pairs if isinstance(pair[2], tuple)]
    assert len(decoded) > 200
    assert [pair for pair in decoded if pair[1] != pair[2]] == []
    # A header that cannot be read costs the image in any case, for the same reason.
    failed = [pair for pair in pairs if not isinstance(pair[1], tuple)]
    assert len(failed) > 50
    assert [pair for pair in failed if pair[1] != pair[2]] == []


def turned(file_format):
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    return encode(picture(), file_format, exif=exif.tobytes())


def late_exif(data):
    """A PNG with its EXIF behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = data.rindex(b"IEND") - 4
    return data[:end] + chunk + data[end:]


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "late"])
def test_the_orientation_exchanges_the_sides(file_format, turns):
    config = ImagesConfig(apply_exif_orientation=turns)
    data = late_exif(encode(picture(), "PNG")) if file_format == "late" else turned(file_format)
    header, decoded = both(data, config)
    assert header == decoded
    assert header[1:] == ((43, 61) if turns else (61, 43))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
def test_no_pixels_are_decoded(monkeypatch, file_format):
    def load(self):
        raise AssertionError("decoded")

    data = turned(file_format) if file_format in ("JPEG", "PNG", "TIFF") else encode(picture(), file_format)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert read_header(data, ImagesConfig()).format == file_format


def test_an_isolated_decoder_reads_headers_too():
    data = turned("JPEG")
    with IsolatedDecoder() as decoder:
        assert decoder.header(data, ImagesConfig()) == read_header(data, ImagesConfig())
        with pytest.raises(BadImage, match="unsupported_format"):
            decoder.header(b"<html>", ImagesConfig())
        assert decoder.decode(data, ImagesConfig(), (8, 8)).width == 43


def test_a_cut_image_has_its_header():
    data = encode(picture(), "JPEG")
    half = data[: len(data) * 3 // 4]
    assert read_header(half, ImagesConfig()).width == 61
    assert Image.open(io.BytesIO(half)).size == (61, 43)
