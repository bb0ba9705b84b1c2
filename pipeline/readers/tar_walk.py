"""Finds the files of a tar, with every byte of the headers checked, so that damage is reported and not skipped.

`tarfile` and the `webdataset` library take a bad header for the end of the archive: after a cut or
a flipped bit the rest of a shard is lost silently. Here a walk that does not end at an end marker
with nothing behind it raises `TarDamage`, after it has yielded every whole file before the damage.

Supported are ustar, old GNU and v7 headers, GNU long names, pax `path` and `size`, base-256 sizes. Names
are labels: nothing is ever written to them. A hard link is the file that it names, if that file came before it.
Symbolic links, devices and folders have no bytes and are left out. An image of a type that POSIX does not define is
read as a file, as POSIX requires.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from pipeline.readers.grouping import Member, named_as_image

BLOCK = 512

# The name of a file or a few attributes; GNU tar's own limit is 1 MiB for names. More is a damaged size.
MAX_EXTENSION_BYTES = 16 << 20

SCAN_BYTES = 1 << 20

FILE_TYPES = (b"0", b"\0", b"7")
BODILESS_TYPES = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, folders and pipes: their header may have a size, but no data follows."""
EXTENSION_TYPES = (b"L", b"K", b"x", b"X", b"g")
SPARSE_TYPE = b"S"
HARD_LINK = b"1"
FOLDER = b"5"

MAX_SIZE_DIGITS = 20
"""Of a pax `size`: the number of digits of 2**64."""


class TarDamage(Exception):
    """The walk cannot continue at `offset`."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(offset, what)
        self.offset = offset
        self.what = what


@dataclass(slots=True)
class _Pending:
    """What extension headers say about the next file."""

    name: bytes | None = None
    size: int | None = None
    link: bytes | None = None


class _Header(NamedTuple):
    name: bytes
    size: int
    kind: bytes
    link: bytes
    """Of a link: the name of its target."""


def walk(file: BinaryIO, size: int, links: list[str] | None = None) -> Iterator[Member]:
    """Yield the files of a tar in their order.

    Args:
        file: the tar.
        size: its bytes.
        links: receives the names of symbolic links and devices.

    Raises:
        TarDamage: the tar does not end properly; all whole files before the damage were yielded.
    """
    offset, pending = 0, _Pending()
    files: dict[str, Member] = {}
    while True:
        block = read_at(file, BLOCK, offset)
        if not block.strip(b"\0") and len(block) == BLOCK:
            _check_rest(file, offset, size)
            return
        header = _parse(block, offset)
        data = offset + BLOCK
        if header.kind in EXTENSION_TYPES:
            _extend(pending, header.kind, _extension(file, data, header.size))
            offset = data + _padded(header.size)
            continue
        length = header.size if pending.size is None else pending.size
        length = 0 if header.kind in BODILESS_TYPES else length
        name, link = (
            text.decode("utf-8", "backslashreplace")
            for text in (pending.name or header.name, pending.link or header.link)
        )
        if header.kind == SPARSE_TYPE:
            raise TarDamage(offset, f"{name!r} is stored as a sparse file; pack the tar again without --sparse")
        if data + length > size:
            raise TarDamage(offset, f"{name!r} has {size - data} of {length} bytes: the tar is cut")
        if header.kind == HARD_LINK:
            yield from _linked(name, files.get(link.removeprefix("./")), link)
        elif header.kind in BODILESS_TYPES:
            if links is not None and header.kind != FOLDER:
                links.append(name)
        elif not name.endswith("/") and (header.kind in FILE_TYPES or named_as_image(name)):
            # v7 marks folders by the slash alone.
            member = files[name.removeprefix("./")] = Member(name, data, length)
            yield member
        offset, pending = data + _padded(length), _Pending()


def _linked(name: str, target: Member | None, link: str) -> Iterator[Member]:
    if target is not None:
        yield target._replace(name=name)
    elif named_as_image(name):
        yield Member(
            name, 0, 0, f"a hard link to {link!r}, which does not come before it in this tar; pack that file along"
        )


def read_at(file: BinaryIO, size: int, offset: int) -> bytes:
    """Return up to `size` bytes from `offset` on; the position of a file without descriptor moves."""
    try:
        fd = file.fileno()
    except io.UnsupportedOperation:  # a file of fsspec's, which reads ranges of a store
        file.seek(offset)
        return file.read(size)
    return os.pread(fd, size, offset)


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _parse(block: bytes, offset: int) -> _Header:
    if not block:
        raise TarDamage(offset, "the end marker is missing: the tar is cut or its writer did not finish")
    if len(block) < BLOCK:
        raise TarDamage(offset, f"{len(block)} of {BLOCK} bytes of a header: the tar is cut")
    try:
        announced, length = _number(block[148:156]), _number(block[124:136])
    except ValueError as err:
        raise TarDamage(offset, "no tar header: a number is not octal") from err
    if length < 0 or not _sums_to(block[:148] + b" " * 8 + block[156:], announced):
        raise TarDamage(offset, "no tar header: its checksum is wrong")
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    link = block[157:257].split(b"\0", 1)[0]
    return _Header(prefix + b"/" + name if prefix else name, length, block[156:157], link)


def _sums_to(header: bytes, announced: int) -> bool:
    unsigned = sum(header)
    # Some old writers summed signed bytes.
    return announced == unsigned or announced == unsigned - 256 * sum(byte > 127 for byte in header)


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base-256, GNU's form for files of 8 GiB and more
        return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.split(b"\0", 1)[0].strip()
    return int(digits, 8) if digits else 0


def _extension(file: BinaryIO, offset: int, length: int) -> bytes:
    if length > MAX_EXTENSION_BYTES:
        raise TarDamage(offset - BLOCK, f"an extended header of {length} bytes")
    body = read_at(file, length, offset)
    if len(body) < length:
        raise TarDamage(offset - BLOCK, f"{len(body)} of {length} bytes of an extended header: the tar is cut")
    return body


def _extend(pending: _Pending, kind: bytes, body: bytes) -> None:
    if kind == b"L":
        pending.name = body.split(b"\0", 1)[0]
    if kind == b"K":
        pending.link = body.split(b"\0", 1)[0]
    if kind in (b"x", b"X"):
        records = _pax_records(body)
        pending.name = records.get(b"path", pending.name)
        pending.link = records.get(b"linkpath", pending.link)
        size = records.get(b"size", b"")
        if size.isdigit() and len(size) <= MAX_SIZE_DIGITS:
            pending.size = int(size)


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    """The `length key=value` lines up to the first that is malformed."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(body):
        digits, _, _ = body[start : start + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits) or start + length > len(body):
            break
        key, _, value = body[start + len(digits) + 1 : start + length - 1].partition(b"=")
        records[key] = value
        start += length
    return records


def _check_rest(file: BinaryIO, offset: int, size: int) -> None:
    """Raise TarDamage unless only zeros follow the end marker."""
    position = offset
    while position < size:
        chunk = read_at(file, SCAN_BYTES, position)
        rest = chunk.lstrip(b"\0")
        if rest:
            start = position + (len(chunk) - len(rest)) // BLOCK * BLOCK
            raise TarDamage(start, _what_follows(file, start, size))
        position += max(len(chunk), 1)


def _what_follows(file: BinaryIO, offset: int, size: int) -> str:
    try:
        _parse(read_at(file, BLOCK, offset), offset)
    except TarDamage:
        return f"{size - offset} bytes that are not a tar follow the end marker"
    return (
        "another tar begins after the end marker (made with `cat`?); its files are not read: "
        "split it, or join tars with `tar -A`"
    )
