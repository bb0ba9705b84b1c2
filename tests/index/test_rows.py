"""What an index says of each image: every image is a row, whatever its bytes are."""

import json
from dataclasses import replace

import imagehash
import pytest
from PIL import Image

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.images.perceptual_hash import HASH_PIXELS, size_for_hash
from pipeline.stages import index_rows
from pipeline.stages.index_rows import IndexSpec, UnreadableShard, index_shard
from schemas.index import INDEX_SCHEMA, Hash
from tests.index.world import BOTH, hostile_images, sha256, write_hostile
from tests.odd_images import encode, picture
from tests.readers.shards import shard_of, tar_of
from tests.selection.world import fields_of, image, write_parquet, write_tar


def spec_of(*hashes, **source):
    return IndexSpec(source=SourceConfig(urls=("x",), **source), images=ImagesConfig(), hashes=frozenset(hashes))


def read(path, spec, **options):
    table = index_shard(spec, shard_of(path), **options).table
    assert table.schema.equals(INDEX_SCHEMA)
    return table.to_pylist()


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_row_has_identity_hash_size_format_and_fields(tmp_path, name):
    (write_tar if name == "a.tar" else write_parquet)(tmp_path, name)
    rows = read(tmp_path / name, spec_of(Hash.SHA256, metadata_fields=("rating",)))
    assert [row["row"] for row in rows] == list(range(12))
    for row in rows:
        data = image(row["row"])
        assert (row["shard"], row["sha256"], row["bytes"]) == (name, sha256(data), len(data))
        assert (row["width"], row["height"], row["format"]) == (20 + row["row"], 40, "PNG")
        assert json.loads(row["metadata"]) == {"rating": fields_of(row["row"])["rating"]}
        assert (row["phash"], row["reason"], row["error"]) == (None, None, None)


def test_without_hashes_only_headers_are_read(tmp_path, monkeypatch):
    write_tar(tmp_path)
    monkeypatch.setattr(index_rows, "decode_or_exit", None)
    monkeypatch.setattr(index_rows, "hashlib", None)
    rows = read(tmp_path / "a.tar", spec_of())
    assert {(row["sha256"], row["phash"]) for row in rows} == {(None, None)}
    assert [row["width"] for row in rows] == list(range(20, 32))


def test_pixels_are_decoded_only_for_the_perceptual_hash(tmp_path, monkeypatch):
    write_tar(tmp_path)
    monkeypatch.setattr(index_rows, "decode_or_exit", None)
    read(tmp_path / "a.tar", spec_of(Hash.SHA256))
    with pytest.raises(TypeError):
        index_rows._of_pixels(spec_of(*BOTH), index_rows._Tools(None, None), b"")


def test_the_perceptual_hash_is_that_of_the_library(tmp_path):
    images = {f"{number}.png": picture(60 + number, 50).rotate(number * 30) for number in range(6)}
    (tmp_path / "a.tar").write_bytes(tar_of((name, encode(image, "PNG")) for name, image in images.items()))
    rows = read(tmp_path / "a.tar", spec_of(Hash.PHASH))
    expected = [str(imagehash.phash(image)) for image in images.values()]
    assert [f"{row['phash']:016x}" for row in rows] == expected
    assert len(set(expected)) == 6


def test_the_perceptual_hash_sees_the_upright_opaque_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(picture().rotate(90, expand=True), "PNG", exif=exif)
    (tmp_path / "a.tar").write_bytes(tar_of([("a.png", encode(picture(), "PNG")), ("b.png", turned)]))
    upright, other = read(tmp_path / "a.tar", spec_of(Hash.PHASH))
    assert upright["phash"] == other["phash"]
    assert (upright["width"], upright["height"]) == (other["width"], other["height"])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2000, 2000), (2000, 2000)), ((4000, 4000), (2000, 2000)), ((10**8, 1), (20_000_000, 1)), ((1, 9), (1, 9))],
)
def test_a_large_image_is_hashed_at_a_smaller_size(size, expected):
    width, height = size_for_hash(*size)
    assert (width, height) == expected
    assert min(size) == 1 or width * height <= HASH_PIXELS


def test_every_hostile_image_is_a_row_with_its_reason(tmp_path):
    keys = write_hostile(tmp_path)
    rows = read(tmp_path / "hostile.tar", spec_of(*BOTH))
    assert [row["key"] for row in rows] == keys
    by_key = {row["key"]: row for row in rows}
    reasons = {key: row["reason"] for key, row in by_key.items() if row["reason"]}
    assert reasons == {
        "bad-empty": "empty_file",
        "bad-text": "unsupported_format",
        "bad-html": "unsupported_format",
        "bad-truncated-header": reasons["bad-truncated-header"],
        "bad-truncated-pixels": "truncated_image",
        "bad-bomb": "too_many_pixels",
        "no-image": "missing_image",
    }
    for key, row in by_key.items():
        assert (row["phash"] is None) == key.startswith(("bad", "no"))
        assert (row["reason"] is None) == (row["error"] is None)
        data = hostile_images().get(key)
        assert (row["sha256"], row["bytes"]) == ((None, None) if data is None else (sha256(data), len(data)))
    whole_header = by_key["bad-truncated-pixels"]
    assert (whole_header["width"], whole_header["height"], whole_header["format"]) == (61, 43, "JPEG")


def test_without_pixels_an_image_with_a_whole_header_has_no_reason(tmp_path):
    write_hostile(tmp_path)
    rows = {row["key"]: row for row in read(tmp_path / "hostile.tar", spec_of(Hash.SHA256))}
    assert rows["bad-truncated-pixels"]["reason"] is None
    assert rows["bad-truncated-pixels"]["width"] == 61
    assert rows["bad-empty"]["reason"] == "empty_file"


def test_an_isolated_reader_gives_the_same_rows(tmp_path):
    write_hostile(tmp_path)
    spec = spec_of(*BOTH)
    assert read(tmp_path / "hostile.tar", spec, isolated=True) == read(tmp_path / "hostile.tar", spec)


def test_an_unreadable_shard_says_why(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    unreadable = index_shard(spec_of(), shard_of(tmp_path / "a.zip"))
    assert isinstance(unreadable, UnreadableShard)
    assert "a.zip" in unreadable.message
    assert unreadable.traceback is None


def test_a_defect_of_a_reader_costs_its_shard_and_names_the_line(tmp_path, monkeypatch):
    write_tar(tmp_path)

    def fail(*_):
        raise ZeroDivisionError("of a reader")

    monkeypatch.setattr(index_rows, "_row", fail)
    unreadable = index_shard(spec_of(), shard_of(tmp_path / "a.tar"))
    assert "a defect of JoyFleet ended its reading (ZeroDivisionError: of a reader)" in unreadable.message
    assert "ZeroDivisionError" in unreadable.traceback


def test_a_shard_that_has_changed_gives_no_rows(tmp_path):
    write_tar(tmp_path)
    shard = replace(shard_of(tmp_path / "a.tar"), etag="mtime-1")
    unreadable = index_shard(spec_of(), shard)
    assert isinstance(unreadable, UnreadableShard), ShardUnreadable
