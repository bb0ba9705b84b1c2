"""Guess the format of a file by its first bytes: for messages and names of files, never to choose a decoder."""

import struct
from collections.abc import Callable
from typing import NamedTuple


class Magic(NamedTuple):
    """The first bytes of a file format. `name` is Pillow's name if Pillow knows the format."""

    offset: int
    magic: bytes
    name: str


# The first match wins, so longer and rarer magics come before shorter ones. Pillow's plugins are no alternative: they
# do not know HEIC, SVG, PDF or HTML, and importing all 44 takes 60 ms.
MAGICS = (
    Magic(0, b"\xff\xd8\xff", "JPEG"),
    Magic(0, b"\x89PNG\r\n\x1a\n", "PNG"),
    Magic(0, b"GIF8", "GIF"),
    Magic(8, b"WEBP", "WEBP"),
    Magic(0, b"II*\0", "TIFF"),
    Magic(0, b"MM\0*", "TIFF"),
    Magic(0, b"II+\0", "TIFF"),
    Magic(0, b"MM\0+", "TIFF"),
    Magic(4, b"ftypavi", "AVIF"),
    Magic(0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    Magic(0, b"\xff\x4f\xff\x51", "JPEG2000"),
    Magic(4, b"ftyphei", "HEIC"),
    Magic(4, b"ftyphev", "HEIC"),
    Magic(4, b"ftypmif1", "HEIC or AVIF"),
    Magic(4, b"ftypmsf1", "HEIC or AVIF"),
    Magic(4, b"ftypcrx", "Canon CR3"),
    Magic(4, b"ftyp", "MP4 or QuickTime video"),
    Magic(0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    Magic(0, b"\xff\x0a", "JPEG XL"),
    Magic(0, b"8BPS", "PSD"),
    Magic(0, b"%!PS", "EPS"),
    Magic(0, b"\xc5\xd0\xd3\xc6", "EPS"),
    Magic(0, b"%PDF", "PDF"),
    Magic(0, b"\0\0\1\0", "ICO"),
    Magic(0, b"\0\0\2\0", "CUR"),
    Magic(0, b"icns", "ICNS"),
    Magic(0, b"qoif", "QOI"),
    Magic(0, b"DDS ", "DDS"),
    Magic(0, b"v/1\x01", "OpenEXR"),
    Magic(0, b"#?RADIANCE", "Radiance HDR"),
    Magic(0, b"SIMPLE  =", "FITS"),
    Magic(0, b"gimp xcf", "GIMP XCF"),
    Magic(0, b"\xd7\xcd\xc6\x9a", "WMF"),
    Magic(0, b"OTTO", "OpenType font"),
    Magic(0, b"\0\1\0\0", "TrueType font"),
    Magic(0, b"wOFF", "WOFF font"),
    Magic(0, b"wOF2", "WOFF font"),
    Magic(0, b"PK\3\4", "ZIP"),
    Magic(0, b"\x1f\x8b", "gzip"),
    Magic(0, b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    Magic(0, b"PAR1", "Parquet"),
    Magic(257, b"ustar", "tar"),
    *(Magic(0, b"P%d" % n + end, "PPM") for n in range(1, 8) for end in (b"\n", b" ", b"\r")),
    Magic(0, b"BM", "BMP"),
)

HEAD_BYTES = 512
"""Enough for every magic above and for the first tag of a text."""


def kind_of(data: bytes) -> str | None:
    """Return the format that the first bytes indicate, such as `JPEG` or `HTML`; None if it is unknown."""
    for magic in MAGICS:
        if data[magic.offset : magic.offset + len(magic.magic)] == magic.magic:
            return magic.name
    text = data[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in text:
        return "SVG"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML"
    if text.startswith(b"<?xml"):
        return "XML"
    return "JSON" if text.startswith((b'{"', b'[{"')) else None


def ends_early(data: bytes, kind: str | None) -> bool:
    """Return whether the container shows that bytes are missing at the end.

    Called only after a decoder has failed: for a truncated WebP, TIFF, AVIF or JPEG 2000 file Pillow reports
    "cannot identify", "decoder error -2" or "broken data stream" (13.0, tested with every length).
    """
    test = _ENDS_EARLY.get(kind or "")
    try:
        return test is not None and test(data)
    except (struct.error, OverflowError):  # an offset beyond the file, or beyond any file
        return True


def _boxes_end_early(data: bytes) -> bool:
    """ISO media files (AVIF, JP2) are a sequence of boxes with lengths; a raw codestream ends with a marker."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return not data.endswith(b"\xff\xd9")
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, offset + 8)
        if length == 0:  # to the end of the file
            return not data.endswith(b"\xff\xd9")
        if length < 8:
            return False
        offset += length
    return offset > len(data)


def _tiff_ends_early(data: bytes) -> bool:
    """The file must contain the first directory, the values that its entries point to, and all strips or tiles."""
    big = data[2:4] in (b"+\0", b"\0+")
    order = "<" if data[:1] == b"I" else ">"
    word, head, size = ("Q", "HHQQ", 20) if big else ("I", "HHII", 12)
    (directory,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, directory)
    starts: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    for at in range(directory + (8 if big else 2), directory + entries * size, size):
        tag, kind, count, value = struct.unpack_from(order + head, data, at)
        code = _TIFF_TYPES.get(kind, "B")
        length = count * struct.calcsize("=" + code)
        at_value = at + size - struct.calcsize("=" + word) if length <= struct.calcsize("=" + word) else value
        if at_value + length > len(data):
            return True
        if tag in _TIFF_STARTS:
            starts = struct.unpack_from(f"{order}{count}{code}", data, at_value)
        if tag in _TIFF_LENGTHS:
            lengths = struct.unpack_from(f"{order}{count}{code}", data, at_value)
    return any(start + length > len(data) for start, length in zip(starts, lengths, strict=False))


_TIFF_TYPES = {3: "H", 4: "I", 5: "Q", 8: "h", 9: "i", 10: "q", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""TIFF field types to `struct` codes of the same size; all other types take one byte."""
_TIFF_STARTS = (273, 324)
_TIFF_LENGTHS = (279, 325)

_ENDS_EARLY: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda data: b"\xff\xd9" not in data,
    "PNG": lambda data: b"IEND" not in data,
    "GIF": lambda data: not data.rstrip(b"\0").endswith(b";"),
    "BMP": lambda data: struct.unpack_from("<I", data, 2)[0] > len(data),
    "WEBP": lambda data: struct.unpack_from("<I", data, 4)[0] + 8 > len(data),
    "AVIF": _boxes_end_early,
    "HEIC or AVIF": _boxes_end_early,
    "JPEG2000": _boxes_end_early,
    "TIFF": _tiff_ends_early,
}
