"""Kinds of bad shards, each with what must become of it: rows, rows with reasons, or quarantine."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import SourceConfig
from pipeline.readers import list_shards
from schemas.shard import Shard
from schemas.status import Reason
from tests.odd_images import encode, picture, png
from tests.readers.shards import shard_of, tar_of

GOOD = encode(picture(), "JPEG")
MEMBER = 512 + -(-len(GOOD) // 512) * 512
"""A header and the padded data of a member of GOOD."""


@dataclass(frozen=True)
class BadInput:
    """A shard, and what its rows must end as: `ok` or a reason each. None: the shard is unreadable."""

    name: str
    data: bytes | dict[str, bytes]
    """Of the shard, or of each file of a folder."""
    rows: tuple[str, ...] | None
    message: str = ""
    """What the quarantine's or the last row's message must hold."""


def made(case: BadInput, folder: Path) -> Shard:
    """Write a case below `folder`, and list it."""
    if isinstance(case.data, bytes):
        return shard_of(folder / case.name, case.data)
    for name, data in case.data.items():
        (folder / case.name / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / case.name / name).write_bytes(data)
    [shard] = list_shards(SourceConfig(urls=(str(folder / case.name),)))
    return shard


def _ok(num: int) -> tuple[str, ...]:
    return ("ok",) * num


def _tar(*names: str, data: bytes = GOOD, tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    return tar_of([(name, data) for name in names], tar_format)


def _link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link.jpg")
    info.type, info.linkname = kind, "a.jpg"
    return info


def tars() -> Iterator[BadInput]:
    four = _tar("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    damaged = str(Reason.SHARD_DAMAGED)
    yield BadInput("cut-in-a-member.tar", four[: 2 * MEMBER + 600], (*_ok(2), damaged), "'c.jpg' has 88 of")
    yield BadInput("cut-in-a-header.tar", four[: 2 * MEMBER + 100], (*_ok(2), damaged), "100 of 512 bytes of a header")
    yield BadInput("cut-at-a-boundary.tar", four[: 3 * MEMBER], (*_ok(3), damaged), "the end marker is missing")
    yield BadInput("cut-in-the-first-member.tar", four[:900], None, "'a.jpg' has 388 of")
    yield BadInput("cut-in-the-first-header.tar", four[:300], None, "300 of 512 bytes of a header")
    yield BadInput("no-end-blocks.tar", four[: 4 * MEMBER], (*_ok(4), damaged), "the end marker is missing")
    yield BadInput("one-end-block.tar", four[: 4 * MEMBER] + bytes(512), _ok(4))
    wrong = bytearray(four)
    wrong[2 * MEMBER + 150] ^= 1
    yield BadInput("bad-checksum.tar", bytes(wrong), (*_ok(2), damaged), "no tar header")
    wrong = bytearray(four)
    wrong[2 * MEMBER + 124 : 2 * MEMBER + 136] = b"zzzzzzzzzzz\0"
    yield BadInput("size-not-octal.tar", bytes(wrong), (*_ok(2), damaged), "a number is not octal")
    yield BadInput("two-in-one.tar", four + four, (*_ok(4), damaged), "another tar begins after the end marker")
    yield BadInput("garbage-at-the-end.tar", four + b"x" * 900, (*_ok(4), damaged), "that are not a tar follow")
    yield BadInput("garbage-at-the-start.tar", b"x" * 512 + four, None, "no tar header")
    yield BadInput("gzip-named-tar.tar", gzip.compress(four), _ok(4))
    yield BadInput("tar-named-gzip.tar.gz", four, _ok(4))
    yield BadInput("cut-gzip.tar.gz", gzip.compress(four, 0)[: 3 * MEMBER], (*_ok(3), damaged), "gzip: ")
    crc = bytearray(gzip.compress(four))
    crc[-8] ^= 1
    yield BadInput("gzip-checksum.tgz", bytes(crc), (*_ok(4), damaged), "gzip: CRC check failed")
    yield BadInput("gzip-of-nothing.tgz", gzip.compress(b""), None, "nothing to read before byte 0")
    yield BadInput("gzip-of-html.tgz", gzip.compress(b"<html>" * 200), None, "no tar header")
    yield BadInput("zero-bytes.tar", b"", None, "0 bytes; restore the shard")
    yield BadInput("html.tar", b"<html><body>404</body></html>" * 40, None, "no tar header")
    yield BadInput("json.tar", b'{"error": "AccessDenied"}' * 40, None, "no tar header")
    yield BadInput("zip.tar", b"PK\3\4" + bytes(2000), None, "no tar header")
    yield BadInput("parquet-named-tar.tar", _parquet(jpg=[GOOD]), None, "no tar header")
    yield BadInput("empty.tar", _tar(), ())
    yield BadInput("zeros.tar", bytes(10240), ())
    yield from _odd_members()


def _odd_members() -> Iterator[BadInput]:
    kinds = {"symlink": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}
    kinds |= {"fifo": tarfile.FIFOTYPE, "folder": tarfile.DIRTYPE}
    for name, kind in kinds.items():
        yield BadInput(f"{name}.tar", tar_of([("a.jpg", GOOD)], extra=[_link(kind)]), _ok(1))
    missing = str(Reason.MISSING_IMAGE)
    link = _link(tarfile.LNKTYPE)
    yield BadInput("hardlink.tar", tar_of([("a.jpg", GOOD)], extra=[link]), _ok(2))
    yield BadInput(
        "hardlink-to-nothing.tar", tar_of([("b.jpg", GOOD)], extra=[link]), ("ok", missing), "link to 'a.jpg'"
    )
    yield BadInput("unknown-type.tar", tar_of([("a.jpg", GOOD)], extra=[_link(b"9")]), ("ok", "empty_file"))
    yield BadInput("folders-of-windows.tar", _tar(".\\a.jpg", "x.v1\\a.jpg", "x.jpg"), _ok(3))
    yield BadInput("dot-dot-names.tar", _tar("../../etc/a.jpg", "a/../b.jpg"), _ok(2))
    yield BadInput("absolute-names.tar", _tar("/etc/passwd.jpg", "/b.jpg"), _ok(2))
    yield BadInput(
        "long-names.tar", _tar("x" * 300 + ".jpg", "y" * 5000 + ".jpg", tar_format=tarfile.PAX_FORMAT), _ok(2)
    )
    yield BadInput("names-not-utf8.tar", _tar("caf\udce9.jpg", "caf\udce8.jpg"), _ok(2))
    yield BadInput("newline-in-a-name.tar", _tar("a\nb.jpg"), _ok(1))
    yield BadInput("duplicate-keys.tar", _tar("a.jpg", "a.jpg", "a.jpg"), _ok(3))
    yield BadInput("no-extension.tar", _tar("0001", "0002"), None, "2 files and no sample")
    yield BadInput("mac-leftovers.tar", _tar("a.jpg", "__MACOSX/._a.jpg", ".DS_Store"), _ok(1))
    yield BadInput("text-without-image.tar", tar_of([("a.txt", b"t"), ("b.jpg", GOOD)]), (missing, "ok"))
    yield BadInput("texts-alone.tar", tar_of([("a.txt", b"t"), ("b.json", b"{}")]), (missing, missing))
    yield BadInput("json-broken.tar", tar_of([("a.jpg", GOOD), ("a.json", b'{"x": ')]), _ok(1))
    yield BadInput("json-deep.tar", tar_of([("a.jpg", GOOD), ("a.json", b"[" * 100_000)]), _ok(1))
    nested = b'{"x": ' + b"[" * 900 + b"]" * 900 + b"}"  # parses, and is deeper than what makes it JSON again
    yield BadInput("json-nested.tar", tar_of([("a.jpg", GOOD), ("a.json", nested)]), _ok(1))
    size = tarfile.TarInfo("a.jpg")
    size.pax_headers = {"size": "9" * 5000}
    header = size.tobuf(tarfile.PAX_FORMAT)
    yield BadInput("absurd-pax-size.tar", header + bytes(1024), ("empty_file",))
    sparse = tarfile.TarInfo("holes.jpg")
    sparse.type = b"S"
    header = sparse.tobuf(tarfile.GNU_FORMAT)
    yield BadInput("sparse.tar", _tar("a.jpg")[:MEMBER] + header + bytes(1024), ("ok", "shard_damaged"), "sparse file")
    absurd = tarfile.TarInfo("x")
    absurd.type, absurd.size = b"x", 1 << 33
    header = absurd.tobuf(tarfile.GNU_FORMAT)
    yield BadInput("absurd-header.tar", _tar("a.jpg")[:MEMBER] + header, ("ok", "shard_damaged"), "an extended header")


def _parquet(rows_per_group: int = 1000, **columns: object) -> bytes:
    return _written(pa.table(columns), rows_per_group)


def _written(table: pa.Table, rows_per_group: int = 1000) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=rows_per_group, write_page_checksum=True)
    return sink.getvalue().to_pybytes()


def parquets() -> Iterator[BadInput]:
    whole = _parquet(key=["a", "b", "c"], jpg=[GOOD] * 3)
    yield BadInput("truncated-footer.parquet", whole[:-20], None, "not a Parquet file that can be read")
    yield BadInput("no-footer.parquet", whole[: len(whole) // 2], None, "not a Parquet file that can be read")
    yield BadInput("footer-alone.parquet", b"PAR1" + whole[-40:], None, "not a Parquet file that can be read")
    yield BadInput("encrypted-footer.parquet", whole[:-4] + b"PARE", None, "not a Parquet file that can be read")
    yield BadInput("footer-length-absurd.parquet", whole[:-8] + b"\xff\xff\xff\x7fPAR1", None, "not a Parquet file")
    yield BadInput("html.parquet", b"<html>404</html>" * 10, None, "not a Parquet file that can be read")
    yield BadInput("zero-bytes.parquet", b"", None, "0 bytes; restore the shard")
    yield BadInput("tar-named-parquet.parquet", _tar("a.jpg"), None, "not a Parquet file that can be read")
    yield BadInput("no-rows.parquet", _parquet(jpg=pa.array([], pa.binary())), ())
    yield BadInput("urls.parquet", _parquet(url=["http://x/a.jpg"]), None, "0 columns may hold images")
    yield BadInput("integers.parquet", _parquet(jpg=[1, 2]), None, "0 columns may hold images")
    yield BadInput("strings.parquet", _parquet(jpg=["abc"]), None, "0 columns may hold images")
    yield BadInput("two-candidates.parquet", _parquet(x=[GOOD], y=[GOOD]), None, "2 columns may hold images")
    yield BadInput("lists-of-bytes.parquet", _parquet(jpg=[[GOOD]]), None, "0 columns may hold images")
    missing = str(Reason.MISSING_IMAGE)
    yield BadInput("nulls.parquet", _parquet(jpg=[GOOD, None, GOOD]), ("ok", missing, "ok"))
    yield BadInput("all-null.parquet", _parquet(jpg=pa.array([None, None], pa.binary())), (missing, missing))
    yield BadInput("null-keys.parquet", _parquet(key=pa.array([None, "b"]), jpg=[GOOD, GOOD]), _ok(2))
    yield BadInput("duplicate-keys.parquet", _parquet(key=["a", "a"], jpg=[GOOD, GOOD]), _ok(2))
    nested = pa.array([{"bytes": GOOD, "path": "a"}, {"bytes": None, "path": "b"}, None])
    yield BadInput("nested.parquet", _parquet(image=nested), ("ok", missing, missing))
    yield BadInput("large-binary.parquet", _parquet(jpg=pa.array([GOOD], pa.large_binary())), _ok(1))
    yield BadInput("huge-row-group.parquet", _parquet(100_000, jpg=[GOOD] * 1500), _ok(1500))
    yield BadInput("a-group-a-row.parquet", _parquet(1, jpg=[GOOD] * 5), _ok(5))
    yield from _odd_values()
    damaged = str(Reason.SHARD_DAMAGED)
    three = bytearray(_parquet(1, jpg=[GOOD, GOOD[::-1] + b"!", GOOD]))
    middle = three.index(GOOD[::-1][:50])
    three[middle : middle + 200] = bytes(200)
    yield BadInput("damaged-row-group.parquet", bytes(three), ("ok", damaged, "ok"))


def _not_utf8(num: int) -> pa.StringArray:
    """Strings as a careless writer leaves them: Latin-1 under the type of UTF-8."""
    texts = [f"Café {number}".encode("latin-1") for number in range(num)]
    offsets = [sum(map(len, texts[:number])) for number in range(num + 1)]
    buffers = (None, pa.array(offsets, pa.int32()).buffers()[1], pa.py_buffer(b"".join(texts)))
    return pa.Array.from_buffers(pa.string(), num, buffers)


def _odd_values() -> Iterator[BadInput]:
    """Values that Arrow holds and Python does not."""
    missing, two = str(Reason.MISSING_IMAGE), [GOOD, GOOD]
    yield BadInput("key-not-utf8.parquet", _parquet(key=_not_utf8(2), jpg=two), _ok(2))
    yield BadInput("text-not-utf8.parquet", _parquet(jpg=two, caption=_not_utf8(2)), _ok(2))
    paths = pa.StructArray.from_arrays([pa.array([GOOD, None]), _not_utf8(2)], ["bytes", "path"])
    yield BadInput("path-not-utf8.parquet", _parquet(image=paths), ("ok", missing), "a path: Caf\\xe9 1")
    errors = _parquet(jpg=[GOOD, None], status=["success", "failed"], error_message=_not_utf8(2))
    yield BadInput("error-not-utf8.parquet", errors, ("ok", missing), "error_message: Caf\\xe9 1")
    for kind in (pa.date32(), pa.time32("s")):
        odd = pa.array([2**31 - 1, -(2**31)], pa.int32()).view(kind)
        yield BadInput(f"far-{kind}.parquet", _parquet(jpg=two, odd=odd), _ok(2))
    for kind in (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.duration("s"), pa.time64("us")):
        odd = pa.array([2**62, -(2**63)], pa.int64()).view(kind)
        yield BadInput(f"far-{kind}.parquet".replace("/", "-"), _parquet(jpg=two, odd=odd), _ok(2))
    for zone in ("Mars/Base", "America"):
        times = pa.array([0, 1], pa.timestamp("us", zone))
        yield BadInput(f"zone-{zone[:4]}.parquet", _parquet(jpg=two, odd=times), _ok(2))
    coded = pa.array(two).dictionary_encode()
    yield BadInput(
        "dictionary-image.parquet", _parquet(jpg=coded, key=pa.array(["a", "b"]).dictionary_encode()), _ok(2)
    )
    yield from _double_names()


def _double_names() -> Iterator[BadInput]:
    images, texts = pa.array([GOOD, GOOD]), pa.array(["a", "b"])
    for name, twice in (("jpg", images), ("key", texts), ("caption", texts)):
        columns = {"jpg": images, "key": texts, name: twice}
        table = pa.Table.from_arrays([*columns.values(), twice], names=[*columns, name])
        message = f"2 columns have the name '{name}'"
        yield BadInput(f"two-columns-{name}.parquet", _written(table), None, message)
    for name, twice in (("bytes", images), ("path", texts)):
        image = pa.StructArray.from_arrays([images, texts, twice], names=["bytes", "path", name])
        message = f"2 fields of column image have the name '{name}'"
        yield BadInput(f"two-fields-{name}.parquet", _written(pa.table({"image": image})), None, message)
    odd = pa.StructArray.from_arrays([texts, texts], names=["a", "a"])
    yield BadInput("two-fields-carried.parquet", _written(pa.table({"jpg": images, "odd": odd})), _ok(2))


def _zip(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _marked_zip(offset: int, value: int) -> bytes:
    """A zip of three images; a byte of what its directory says of the second one is changed."""
    data = bytearray(_zip(*((name, GOOD) for name in ("a.jpg", "b.jpg", "c.jpg"))))
    data[data.index(b"PK\1\2", data.index(b"PK\1\2") + 1) + offset] = value
    return bytes(data)


def zips() -> Iterator[BadInput]:
    three = _zip(*((name, GOOD) for name in ("a.jpg", "b.jpg", "c.jpg")), method=zipfile.ZIP_STORED)
    damaged, missing = str(Reason.SHARD_DAMAGED), str(Reason.MISSING_IMAGE)
    yield BadInput("whole.zip", three, _ok(3))
    yield BadInput("packed.zip", _zip(("x/a.jpg", GOOD), ("x/a.txt", b"t"), ("x/", b"")), _ok(1))
    yield BadInput("cut.zip", three[:-30], None, "not a zip that can be read")
    yield BadInput("cut-in-half.zip", three[: len(three) // 2], None, "not a zip that can be read")
    yield BadInput("zero-bytes.zip", b"", None, "0 bytes; restore the shard")
    yield BadInput("html.zip", b"<html>404</html>" * 40, None, "not a zip that can be read")
    yield BadInput("tar-named-zip.zip", _tar("a.jpg"), None, "not a zip that can be read")
    yield BadInput("no-files.zip", _zip(), ())
    yield BadInput("no-samples.zip", _zip(("0001", GOOD)), None, "1 files and no sample")
    yield BadInput("text-without-image.zip", _zip(("a.txt", b"t"), ("b.jpg", GOOD)), (missing, "ok"))
    yield BadInput("dot-dot-names.zip", _zip(("../../a.jpg", GOOD), ("/b.jpg", GOOD)), _ok(2))
    wrong = bytearray(three)
    middle = wrong.index(GOOD, wrong.index(GOOD) + 1)
    wrong[middle + 100 : middle + 110] = bytes(10)
    yield BadInput("bytes-changed.zip", bytes(wrong), ("ok", damaged, "ok"))
    yield BadInput("encrypted-file.zip", _marked_zip(8, 1), ("ok", damaged, "ok"))
    yield BadInput("unknown-compression.zip", _marked_zip(10, 93), ("ok", damaged, "ok"))
    yield BadInput("unpacks-to-more.zip", _marked_zip(24, 1), ("ok", damaged, "ok"))
    yield BadInput("no-name.zip", _zip(("a.jpg", GOOD), ("", b"x"), ("b.jpg", GOOD)), _ok(2))
    bz2 = bytearray(_zip(("a.jpg", GOOD), ("b.jpg", GOOD), method=zipfile.ZIP_BZIP2))
    bz2[60:90] = bytes(30)
    yield BadInput("bzip2-changed.zip", bytes(bz2), (damaged, "ok"))
    yield BadInput("bomb.zip", _zip(("a.jpg", bytes(4 << 20)), ("b.jpg", GOOD)), ("too_many_bytes", "ok"))


def folders() -> Iterator[BadInput]:
    def bad_folder(name: str, rows: tuple[str, ...], **files: bytes) -> BadInput:
        return BadInput(f"folder-{name}", {file.replace("__", "."): data for file, data in files.items()}, rows)

    yield bad_folder("notes", _ok(1), a__jpg=GOOD, a__txt=b"t", readme__md=b"#", notes__json=b"{}", b__txt=b"t")
    yield bad_folder("hidden", _ok(1), a__jpg=GOOD, __DS_Store=b"x", LICENSE=b"x")
    yield bad_folder("zero-bytes", ("empty_file", "ok"), a__jpg=b"", b__jpg=GOOD)
    yield bad_folder("html", ("unsupported_format", "ok"), a__jpg=b"<html></html>", b__jpg=GOOD)
    yield bad_folder("truncated", ("truncated_image", "ok"), a__jpg=GOOD[: len(GOOD) // 2], b__jpg=GOOD)
    yield bad_folder("too-many-bytes", ("too_many_bytes", "ok"), a__jpg=GOOD + bytes(1 << 20), b__jpg=GOOD)
    yield bad_folder("dotted-names", _ok(3), figure1__jpg=GOOD, figure1__1__jpg=GOOD, figure1__mask__png=GOOD)
    yield bad_folder("two-of-a-name", _ok(2), a__jpg=GOOD, a__PNG=encode(picture(), "PNG"))
    yield bad_folder("json-broken", _ok(1), a__jpg=GOOD, a__json=b'{"x": ')


def images() -> Iterator[BadInput]:
    def bad_image(name: str, data: bytes, row: str) -> BadInput:
        return BadInput(f"image-{name}.tar", tar_of([("a.jpg", data), ("b.jpg", GOOD)]), (row, "ok"))

    yield bad_image("zero-bytes", b"", "empty_file")
    yield bad_image("html", b"<!DOCTYPE html><html></html>", "unsupported_format")
    yield bad_image("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "unsupported_format")
    yield bad_image("truncated-jpeg", GOOD[: len(GOOD) // 2], "truncated_image")
    yield bad_image("truncated-png", encode(picture(), "PNG")[:200], "truncated_image")
    yield bad_image("bomb", png(60_000, 60_000, 8, 6, rows=4), "too_many_pixels")
    yield bad_image("1-x-5000", encode(picture(1, 5000), "PNG"), "ok")
    yield bad_image("5000-x-1", encode(picture(5000, 1), "JPEG"), "ok")
    yield bad_image("1-x-1", encode(picture(1, 1), "GIF"), "ok")
    yield bad_image("cmyk", encode(picture().convert("CMYK"), "JPEG"), "ok")
    yield bad_image("animated", encode(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)]), "ok")
    yield bad_image("too-many-bytes", GOOD + bytes(1 << 20), "too_many_bytes")


PARTS: tuple[Callable[[], Iterator[BadInput]], ...] = (tars, parquets, zips, folders, images)


def bad_inputs() -> list[BadInput]:
    result = [case for part in PARTS for case in part()]
    assert len({case.name for case in result}) == len(result)
    return result


def table() -> str:
    """The kinds and their outcomes as Markdown, for people."""
    out = io.StringIO()
    print("| kind | outcome |\n|---|---|", file=out)
    for case in bad_inputs():
        rows = "quarantine" if case.rows is None else ", ".join(dict.fromkeys(case.rows)) or "no rows"
        print(f"| `{case.name}` | {rows}{f': {case.message}' if case.message else ''} |", file=out)
    return out.getvalue()


if __name__ == "__main__":
    print(table())
