"""Odd images by the hundred, built in memory from a seed: what a crawl of the web brings along.

`build_odd_images` yields cases with the outcome that is certain for them, or none where both
outcomes are right. Whatever the bytes, one of the two outcomes must come: pixels or a `BadImage`.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from schemas.status import Reason


@dataclass(frozen=True)
class OddImage:
    name: str
    data: bytes
    reason: Reason | None = None
    """The reason that must come, if `decodes` is False and it is certain."""
    decodes: bool | None = None
    """Whether pixels must come; None if both outcomes are right."""


WIDTH, HEIGHT = 61, 43


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Smooth colours with edges: compresses in every format, and no two corners are alike."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 20, 30), (0, 0, max(1, width // 3), max(1, height // 4)))
    return image


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def in_mode(mode: str) -> Image.Image:
    """`picture` in a mode of Pillow, transparent in one half where the mode can say so."""
    rgb = picture()
    if mode in ("LA", "RGBA", "PA"):
        alpha = np.linspace(0, 255, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint8)
        rgba = rgb.convert("RGBA")
        rgba.putalpha(Image.fromarray(alpha))
        return rgba.convert(mode) if mode != "PA" else rgba.quantize(64).convert("PA")
    grey = np.asarray(rgb.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I;16B":
        return Image.frombytes("I;16B", (WIDTH, HEIGHT), (grey.astype(">u2") * 257).tobytes())
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    return rgb.convert(mode)


MODES = {
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F"),
    "WEBP": ("L", "RGB", "RGBA", "P"),
    "AVIF": ("L", "RGB", "RGBA", "LA"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16"),
    "MPO": ("L", "RGB"),
}

OPTIONS: dict[str, dict[str, dict]] = {
    "JPEG": {"q1": {"quality": 1}, "q100": {"quality": 100, "subsampling": 0}, "progressive": {"progressive": True}},
    "PNG": {"level0": {"compress_level": 0}, "bits4": {"bits": 4}, "icc": {"icc_profile": b"not a profile"}},
    "GIF": {"interlace": {"interlace": 1}, "comment": {"comment": b"\xff" * 300}},
    "BMP": {"dpi": {"dpi": (1, 1)}},
    "TIFF": {
        name: {"compression": name}
        for name in ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd")
    },
    "WEBP": {"lossless": {"lossless": True}, "q1": {"quality": 1}, "exif": {"exif": b"Exif\0\0broken"}},
    "AVIF": {"q1": {"quality": 1}, "444": {"subsampling": "4:4:4"}},
    "JPEG2000": {"raw": {"no_jp2": True}, "lossy": {"irreversible": True}, "tiles": {"tile_size": (32, 32)}},
    "MPO": {},
}


def valid_files() -> dict[str, bytes]:
    """One file of every format, mode and option; all decode."""
    files = {f"{fmt}-{mode}": encode(in_mode(mode), fmt) for fmt, modes in MODES.items() for mode in modes}
    for fmt, named in OPTIONS.items():
        image = picture().quantize(16) if fmt == "PNG" else picture()
        files |= {f"{fmt}-{name}": encode(image, fmt, **options) for name, options in named.items()}
    frames = [picture().rotate(90 * turn) for turn in range(1, 4)]
    for fmt in ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"):
        files[f"{fmt}-frames"] = encode(picture(), fmt, save_all=True, append_images=frames)
    files["TIFF-big"] = encode(picture(), "TIFF", big_tiff=True)
    return files | dict(_transparent_files())


def _transparent_files() -> Iterator[tuple[str, bytes]]:
    palette = picture().quantize(16)
    yield "PNG-tRNS-palette", encode(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    yield "PNG-tRNS-index", encode(palette, "PNG", transparency=3)
    yield "PNG-tRNS-rgb", encode(picture(), "PNG", transparency=(250, 20, 30))
    yield "PNG-tRNS-grey", encode(picture().convert("L"), "PNG", transparency=40)
    yield "PNG-tRNS-bit", encode(picture().convert("1"), "PNG", transparency=1)
    yield "PNG-tRNS-16", encode(in_mode("I;16"), "PNG", transparency=40 * 257)
    yield "GIF-transparency", encode(palette, "GIF", transparency=2)


TRUNCATABLE = (
    *("JPEG-RGB", "JPEG-progressive", "PNG-RGBA", "PNG-tRNS-palette", "GIF-P", "BMP-RGB", "WEBP-RGB"),
    *("WEBP-lossless", "AVIF-RGB", "JPEG2000-RGB", "JPEG2000-raw", "TIFF-RGB", "TIFF-tiff_lzw", "TIFF-jpeg"),
)


def truncations(files: dict[str, bytes]) -> Iterator[OddImage]:
    """Each format cut in its header, its first data and, where it is certain, before its last quarter's end."""
    for name in TRUNCATABLE:
        data = files[name]
        for cut in (1, 7, 12, 16, 20, 33, 64):
            yield OddImage(f"{name}-cut-{cut}", data[:cut], decodes=False)
        for part in (0.2, 0.4, 0.5, 0.6, 0.75, 0.9):
            yield OddImage(f"{name}-cut-{part:.0%}", data[: int(len(data) * part)], Reason.TRUNCATED_IMAGE, False)
        yield OddImage(f"{name}-cut-last", data[:-1])


def bit_flips(files: dict[str, bytes]) -> Iterator[OddImage]:
    rng = np.random.default_rng(7)
    for name, data in files.items():
        for number in range(2):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 8):
                broken[place] ^= 1 << int(rng.integers(8))
            yield OddImage(f"{name}-flip-{number}", bytes(broken))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, *, rows: int | None = None, extra: bytes = b"") -> bytes:
    """A PNG of zeros, `rows` of its height present; a million pixels take a kilobyte."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = b"\0" * (1 + (width * channels * depth + 7) // 8)
    body = zlib.compress(row * (height if rows is None else rows), 1)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    palette = png_chunk(b"PLTE", bytes(range(48))) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + palette + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def tiff(*tags: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A little-endian TIFF of the given (tag, type, count, value); `data` stands at offset 8."""
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + body


def grey_tiff(width: int, height: int, *more: tuple[int, int, int, int], compression: int = 1) -> bytes:
    own = {tag[0] for tag in more}
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)),
        *((273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 64)),
    ]
    return tiff(*(tag for tag in tags if tag[0] not in own), *more, data=bytes(64))


def bombs() -> Iterator[OddImage]:
    """Small files that ask for much memory, by their size or behind it."""
    big = partial(OddImage, reason=Reason.TOO_MANY_PIXELS, decodes=False)
    yield big("bomb-png-rgba", png(60_000, 60_000, 8, 6, rows=4))
    yield big("bomb-png-16", png(100_000, 100_000, 16, 6, rows=1))
    yield big("bomb-png-limit", png(2**31 - 1, 2**31 - 1, 1, 0, rows=0))
    yield big("bomb-gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + _gif_frame(9, 9))
    yield big(
        "bomb-gif-frame", b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6) + _gif_frame(65535, 65535)
    )
    yield big("bomb-webp-canvas", _webp_canvas(16_777_215, 200))
    yield OddImage("bomb-webp-canvas-limit", _webp_canvas(16_777_215, 16_777_215), decodes=False)
    yield big("bomb-bmp", _bmp(70_000, 70_000))
    yield big("bomb-bmp-negative", _bmp(70_000, -70_000))
    yield big("bomb-tiff", grey_tiff(1_000_000, 1_000_000))
    yield big("bomb-tiff-limit", grey_tiff(2**32 - 1, 2**32 - 1))
    for compression in (5, 8, 32773, 7, 50000, 50001, 34925, 2, 3, 4):
        more = ((322, 4, 1, 65520), (323, 4, 1, 65520), (324, 4, 1, 8), (325, 4, 1, 64))
        yield OddImage(
            f"bomb-tiff-tile-{compression}", grey_tiff(16, 16, *more, compression=compression), decodes=False
        )
        strip = (278, 4, 1, 2**31)
        yield OddImage(f"bomb-tiff-strip-{compression}", grey_tiff(16, 16, strip, compression=compression))
    yield OddImage("bomb-tiff-count", grey_tiff(16, 16, (273, 4, 2**30, 8)), decodes=False)
    yield OddImage("bomb-tiff-ascii", grey_tiff(16, 4, (270, 2, 2**32 - 1, 8)))
    yield OddImage("bomb-tiff-samples", grey_tiff(16, 4, (277, 3, 1, 65535)), decodes=False)
    yield from _jpeg2000_bombs()
    yield from _metadata_bombs()


def _metadata_bombs() -> Iterator[OddImage]:
    zeros = zlib.compress(bytes(80_000_000), 9)
    for kind, head in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        yield OddImage(f"bomb-png-{kind.decode()}", png(20, 20, 8, 2, extra=png_chunk(kind, head + zeros)))
    texts = b"".join(png_chunk(b"zTXt", b"k%d\0\0" % number + zlib.compress(bytes(900_000))) for number in range(200))
    yield OddImage("bomb-png-many-texts", png(20, 20, 8, 2, extra=texts))
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">H", 65535) + b"\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\x08" * 3
    yield OddImage("bomb-exif-count", encode(picture(), "JPEG", exif=b"Exif\0\0" + exif), decodes=True)
    loop = b"MM\0*\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x08\0\0\0\x08"
    yield OddImage("bomb-exif-loop", encode(picture(), "JPEG", exif=b"Exif\0\0" + loop), decodes=True)
    yield OddImage("bomb-tiff-ifd-loop", grey_tiff(8, 8)[:-4] + struct.pack("<I", 72), decodes=True)


def _jpeg2000_bombs() -> Iterator[OddImage]:
    raw, boxed = encode(picture(), "JPEG2000", no_jp2=True), encode(picture(), "JPEG2000")
    size = raw.index(b"\xff\x51")
    for name, start in (("raw", size), ("boxed", boxed.index(b"\xff\x51"))):
        data = bytearray(raw if name == "raw" else boxed)
        data[start + 6 : start + 14] = struct.pack(">II", 60_000, 60_000)
        data[start + 22 : start + 30] = struct.pack(">II", 60_000, 60_000)
        yield OddImage(f"bomb-jpeg2000-{name}", bytes(data), decodes=False)
    data = bytearray(boxed)
    header = boxed.index(b"ihdr")
    data[header + 4 : header + 12] = struct.pack(">II", 60_000, 60_000)
    yield OddImage("bomb-jpeg2000-ihdr", bytes(data), Reason.TOO_MANY_PIXELS, decodes=False)


def _gif_frame(width: int, height: int) -> bytes:
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"


def _webp_canvas(width: int, height: int) -> bytes:
    extended = b"\x10\0\0\0" + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    image = encode(picture(), "WEBP")[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + extended + image
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + info + bytes(64)


def other_files() -> Iterator[OddImage]:
    """Files that are no images, or images of formats that are not decoded."""
    rng = np.random.default_rng(11)
    no = partial(OddImage, reason=Reason.UNSUPPORTED_FORMAT, decodes=False)
    yield OddImage("zero-bytes", b"", Reason.EMPTY_FILE, decodes=False)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    yield no("eps", eps)
    yield no("eps-preview", b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(eps)) + bytes(18) + eps)
    yield no("svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    yield no("pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF")
    yield no("html", b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>")
    yield no("json", b'{"error": "rate limited"}')
    yield no("psd", b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(64))
    yield no("heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + rng.bytes(200))
    yield no("jxl", b"\xff\x0a" + rng.bytes(60))
    yield no("mp4", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + rng.bytes(200))
    for file_format in ("ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "QOI", "ICNS", "DIB", "XBM"):
        image = picture().resize((64, 64))
        yield no(file_format.lower(), encode(image.convert("1") if file_format == "XBM" else image, file_format))
    for magic in (
        b"\0\1\0\0",
        b"OTTO",
        b"true",
        b"wOFF",
        b"PK\3\4",
        b"\x1f\x8b\x08\0",
        b"\x7fELF",
        b"RIFF\xff\0\0\0WAVE",
    ):
        yield no(f"file-{magic!r}", magic + rng.bytes(700))
    for number in range(12):
        yield no(f"random-{number}", b"\x03" + rng.bytes(1 + number * 90))
    yield no("zeros", bytes(4096))
    yield no("one-byte", b"x")
    yield no("text", "nicht gefunden — 404".encode())
    yield OddImage("jpeg-markers-only", b"\xff\xd8\xff\xd9", decodes=False)
    yield OddImage("jpeg-soi-only", b"\xff\xd8\xff", Reason.TRUNCATED_IMAGE, decodes=False)
    yield OddImage("png-signature-only", b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED_IMAGE, decodes=False)
    for head in (
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"RIFF\x40\0\0\0WEBPVP8 ",
        b"\xff\x4f\xff\x51",
    ):
        yield OddImage(f"random-after-{head!r}", head + rng.bytes(800))


def shapes() -> Iterator[OddImage]:
    """Sides of 0, of 1 and of many pixels."""
    for width, height in ((1, 1), (1, 2), (2, 1), (1, 30_000), (30_000, 1), (3, 9_000)):
        for file_format in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"):
            if file_format == "WEBP" and max(width, height) > 16_383:
                continue
            data = encode(picture(width, height), file_format)
            certain = None if file_format in ("AVIF", "JPEG2000") else True
            yield OddImage(f"{file_format}-{width}x{height}", data, decodes=certain)
    yield OddImage("png-line-500k", png(1, 500_000, 1, 0), decodes=True)
    yield OddImage("png-line-20M", png(1, 20_000_000, 1, 0), decodes=True)
    yield OddImage("png-row-20M", png(20_000_000, 1, 1, 0), decodes=True)
    for width, height in ((0, 0), (0, 5), (5, 0)):
        yield OddImage(f"png-{width}x{height}", png(width, height, 8, 2), decodes=False)
        yield OddImage(f"bmp-{width}x{height}", _bmp(width, height), decodes=False)
        yield OddImage(f"tiff-{width}x{height}", grey_tiff(width, height), decodes=False)
        screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        yield OddImage(f"gif-{width}x{height}", screen + _gif_frame(width, height), decodes=False)


def greys() -> Iterator[OddImage]:
    ramp = np.linspace(-3, 7, 64 * 48, dtype=np.float32).reshape(48, 64)
    broken = ramp.copy()
    broken[:9], broken[9:12], broken[12:15] = np.nan, np.inf, -np.inf
    for name, values in {
        "float-stretch": ramp,
        "float-nan": broken,
        "float-all-nan": np.full_like(ramp, np.nan),
        "float-flat": np.full_like(ramp, 900),
        "float-huge": ramp * np.float32(4e37),
        "int-negative": (ramp * 1e6).astype(np.int32),
        "int-8-bit": np.clip(ramp * 30, 0, 255).astype(np.int32),
        "int-16-bit": np.clip(ramp * 9000, 0, 65535).astype(np.int32),
    }.items():
        yield OddImage(f"tiff-{name}", encode(Image.fromarray(values), "TIFF"), decodes=True)


def orientations() -> Iterator[OddImage]:
    for orientation in (*range(10), 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"):
            data = encode(picture(), file_format, exif=exif)
            yield OddImage(f"{file_format}-orientation-{orientation}", data, decodes=True)
    for number, junk in enumerate((b"", b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 40)):
        yield OddImage(f"JPEG-exif-junk-{number}", encode(picture(), "JPEG", exif=junk), decodes=True)


def build_odd_images() -> list[OddImage]:
    files = valid_files()
    parts: list[Callable[[], Iterator[OddImage]]] = [bombs, other_files, shapes, greys, orientations]
    odd = [OddImage(name, data, decodes=True) for name, data in files.items()]
    odd += [*truncations(files), *bit_flips(files)]
    odd += [case for part in parts for case in part()]
    assert len({case.name for case in odd}) == len(odd)
    return odd
