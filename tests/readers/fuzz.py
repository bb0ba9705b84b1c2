"""Small sound shards, damaged at random from a seed: what a disk, a network or a careless tool makes of them."""

import gzip
import io
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.models import FixedSize
from pipeline.readers import list_shards
from pipeline.stages.read_batches import ReadSpec, read_shard
from schemas.batch import BatchKind
from schemas.shard import Shard
from tests.odd_images import encode, picture
from tests.readers.shards import shard_of, tar_of

IMAGE = encode(picture(), "JPEG")
MAX_ROWS = 300
"""More rows than any of the shards below can have files."""
FORMATS = ("zip", "parquet", "tar", "tar.gz")

Damage = Callable[[random.Random, bytearray], None]


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite(rng: random.Random, data: bytearray) -> None:
    """Values that headers do not expect: all ones, zeros, a sign."""
    start = rng.randrange(len(data))
    length = rng.choice((1, 2, 4, 8))
    data[start : start + length] = rng.choice((b"\xff", b"\0", b"\x80", b"\x7f", b" ", b"9", b"-")) * length


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(1, len(data)) :]


def remove(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 3, 40, 512))]


def insert(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 3, 40, 512)))


def duplicate(rng: random.Random, data: bytearray) -> None:
    start, to = rng.randrange(len(data)), rng.randrange(len(data))
    data[to:to] = data[start : start + rng.choice((4, 46, 512, 2000))]


def tear(rng: random.Random, data: bytearray) -> None:
    """Write a piece of the file over another: a page that went to the wrong place."""
    start, to, length = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((4, 16, 46, 512))
    piece = data[start : start + length]
    data[to : to + len(piece)] = piece


DAMAGES: tuple[Damage, ...] = (flip, flip, overwrite, overwrite, cut, remove, insert, duplicate, tear)


def zip_fields(rng: random.Random, data: bytearray) -> None:
    """Change the directory or a header of a zip: all that a reader believes of it."""
    signature = rng.choice((b"PK\1\2", b"PK\1\2", b"PK\3\4", b"PK\5\6"))
    starts = [place for place in range(len(data) - 46) if data[place : place + 4] == signature]
    if starts:
        data[rng.choice(starts) + rng.randrange(4, 46)] = rng.choice((0, 1, 8, 12, 14, 0x80, 0xFF, rng.randrange(256)))


def parquet_footer(rng: random.Random, data: bytearray) -> None:
    """Change the footer of a Parquet file, where nothing has a checksum."""
    size = int.from_bytes(data[-8:-4], "little")
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(max(0, len(data) - 8 - size), len(data) - 4)
        data[place] = rng.choice((0xFF, 0, 0x80, data[place] ^ 1 << rng.randrange(8)))


def tar_header(rng: random.Random, data: bytearray) -> None:
    """Change a field of a tar's header and give it the right checksum again."""
    starts = [place for place in range(0, len(data) - 511, 512) if data[place + 257 : place + 262] == b"ustar"]
    if not starts:
        return
    start = rng.choice(starts)
    fields = ((0, 100), (124, 12), (124, 1), (156, 1), (157, 100), (257, 8), (345, 155))
    offset, length = rng.choice(fields)
    value = rng.choice((b"\xff", b"\0", b"7", b"1", b"L", b"x", b"\\", b"/", b".", rng.randbytes(1)))
    place = start + offset + rng.randrange(length)
    data[place : place + 1] = value
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])


FIELDS: Mapping[str, Damage] = {"zip": zip_fields, "parquet": parquet_footer, "tar": tar_header}


def sound_shards() -> Mapping[str, list[bytes]]:
    """Sound shards by format, of all that writers put into them."""
    files = [(f"x/{number}.jpg", IMAGE) for number in range(4)]
    files += [("x/0.txt", "schön".encode()), ("x/1.json", b'{"tags": ["x"], "n": 1.5}'), ("x/2.mask.png", IMAGE)]
    long = [("n" * 150 + ".jpg", IMAGE)]
    link = tarfile.TarInfo("x/link.jpg")
    link.type, link.linkname = tarfile.LNKTYPE, "x/0.jpg"
    tars = [
        tar_of(files, tarfile.USTAR_FORMAT, [link]),
        tar_of([*files, *long], tarfile.GNU_FORMAT),
        tar_of([*long, *files], tarfile.PAX_FORMAT),
    ]
    zips = [_zip(files, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)]
    zips.append(_zip(files, zipfile.ZIP_LZMA))
    return {
        "zip": zips,
        "parquet": [_parquet(1), _parquet(3, compression="none"), _parquet(9, write_page_checksum=False)],
        "tar": tars,
        "tar.gz": [gzip.compress(data, level, mtime=0) for data in tars for level in (0, 6)],
    }


def _zip(files: list[tuple[str, bytes]], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _parquet(group: int, **options: object) -> bytes:
    images = [IMAGE, IMAGE, None, IMAGE, IMAGE]
    columns = {
        "key": pa.array([f"k{number}" for number in range(5)]).dictionary_encode(),
        "image": pa.array([{"bytes": image, "path": f"p/{n}.jpg"} for n, image in enumerate(images)]),
        "status": ["success", "success", "failed", "success", "success"],
        "error_message": [None, None, "404", None, None],
        "when": pa.array(range(5), pa.timestamp("us", "Europe/Vienna")),
        "day": pa.array(range(5), pa.date32()),
        "took": pa.array(range(5), pa.duration("ms")),
        "nested": [{"tags": ["a", "ö"], "score": 0.5}] * 5,
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, row_group_size=group, **{"write_page_checksum": True, **options})
    return sink.getvalue().to_pybytes()


def damaged(rng: random.Random, kind: str, sound: bytes) -> bytes:
    data = bytearray(gzip.decompress(sound) if kind == "tar.gz" and rng.random() < 0.3 else sound)
    unpacked = kind == "tar.gz" and bytes(data) != sound
    damages = [FIELDS["tar"]] if unpacked else [*DAMAGES, *([FIELDS[kind]] * 4 if kind in FIELDS else [])]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) > 1:
            rng.choice(damages)(rng, data)
    return gzip.compress(bytes(data), 1, mtime=0) if unpacked else bytes(data)


def outcome(folder: Path, name: str, data: bytes) -> str:
    """Read a shard as a read task does, with all its fields; say how it ended."""
    return ended(shard_of(folder / name, data))


def ended(shard: Shard, source: SourceConfig | None = None) -> str:
    source = source or SourceConfig(urls=(shard.url,), metadata_fields=("*",))
    spec = ReadSpec(source=source, images=ImagesConfig(max_bytes=1 << 20), geometry=FixedSize(16, 16), batch_images=3)
    batches = [batch.to_pylist()[0] for batch in read_shard(spec, shard, [])]
    last = batches[-1]
    if last["kind"] == BatchKind.UNREADABLE:
        return "defect" if last["traceback"] else "quarantined"
    rows = [image for batch in batches for image in batch["images"]]
    assert len(rows) == last["num_images"] <= MAX_ROWS
    assert [row["row"] for row in rows] == list(range(len(rows)))
    return "failed rows" if any(row["reason"] for row in rows) else "ok"


def trial(kind: str, num_cases: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Damage and read so many shards of one format; return how they ended, and the defects, each as `kind seed`."""
    ends: Counter[str] = Counter()
    defects: list[str] = []
    sound = sound_shards()[kind]
    for number in range(num_cases):
        case = f"{kind} {seed} {number}"
        rng = random.Random(case)
        end = outcome(folder, f"a.{kind}", damaged(rng, kind, rng.choice(sound)))
        ends[end] += 1
        if end == "defect":
            defects.append(case)
    return ends, defects


def odd_names(rng: random.Random) -> list[bytes]:
    """File names of any bytes that a disk takes, most of them with the extension of an image."""
    pieces = (
        b"a",
        b"b",
        b".",
        b".",
        b",",
        b"#",
        b"%2C",
        b"\\",
        b"\xe9",
        b"\xff",
        b"\n",
        b"\x1b[2J",
        "é".encode(),
        b" ",
    )
    return [
        b"".join(rng.choices(pieces, k=rng.randrange(1, 6))) + rng.choice((b".jpg", b".jpg", b".JPG", b".txt", b""))
        for _ in range(6)
    ]


def folder_trial(num_cases: int, seed: int, root: Path) -> Counter[str]:
    """Read folders of files with odd names, each as a source of its own."""
    ends: Counter[str] = Counter()
    for number in range(num_cases):
        folder = root / str(number)
        folder.mkdir()
        (folder / "sound.jpg").write_bytes(IMAGE)
        names = odd_names(random.Random(f"folder {seed} {number}"))
        for name in names:
            if name not in (b".", b".."):
                Path(f"{folder}/{name.decode(errors='surrogateescape')}").write_bytes(IMAGE)
        source = SourceConfig(urls=(str(folder),), metadata_fields=("*",), images_per_shard=3)
        ends.update(ended(shard, source) for shard in list_shards(source))
    return ends
