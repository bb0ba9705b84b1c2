import gzip
import io
import tarfile

import pytest

from pipeline.errors import ShardUnreadable
from pipeline.readers.gunzip import gunzip
from schemas.status import Reason
from tests.readers.shards import read, shard_of, tar_of

FILES = [(f"{number}.jpg", bytes([number]) * 1000) for number in range(6)]
GOOD = tar_of(FILES)
MEMBER = 512 + 1024
"""A header and the padded data of each of FILES."""


def damaged(tmp_path, data, name="a.tar"):
    """Keys of the whole rows, and the last row, which tells of the damage."""
    *whole, last = read(shard_of(tmp_path / name, data))
    assert all(row.data is not None for row in whole)
    assert [row.data for row in whole] == [data for _, data in FILES[: len(whole)]]
    assert (last.data, last.reason) == (None, Reason.SHARD_DAMAGED)
    return [row.key for row in whole], last


def test_a_cut_between_members_is_reported(tmp_path):
    keys, last = damaged(tmp_path, GOOD[: 3 * MEMBER])

    assert keys == ["0", "1", "2"]
    assert last.key == f"<damaged at byte {3 * MEMBER}>"
    assert last.message == (
        f"{tmp_path}/a.tar: everything from byte 4608 on is lost: "
        "the end marker is missing: the tar is cut or its writer did not finish"
    )


def test_a_cut_in_a_header_is_reported(tmp_path):
    keys, last = damaged(tmp_path, GOOD[: 2 * MEMBER + 100])

    assert keys == ["0", "1"]
    assert last.message.endswith("byte 3072 on is lost: 100 of 512 bytes of a header: the tar is cut")


def test_a_cut_in_a_member_is_reported_by_name(tmp_path):
    keys, last = damaged(tmp_path, GOOD[: 4 * MEMBER + 512 + 10])

    assert keys == ["0", "1", "2", "3"]
    assert last.message.endswith("byte 6144 on is lost: '4.jpg' has 10 of 1000 bytes: the tar is cut")


def test_a_cut_in_the_padding_of_a_member_leaves_it_whole(tmp_path):
    keys, last = damaged(tmp_path, GOOD[: 4 * MEMBER - 5])

    assert keys == ["0", "1", "2", "3"]
    assert "end marker is missing" in last.message


@pytest.mark.parametrize("place", [0, 100, 130, 150, 345])
def test_a_bad_header_in_the_middle_is_reported(tmp_path, place):
    data = bytearray(GOOD)
    data[3 * MEMBER + place] ^= 0x41

    keys, last = damaged(tmp_path, bytes(data))

    assert keys == ["0", "1", "2"]
    assert "byte 4608 on is lost: no tar header: " in last.message


def test_a_number_that_is_not_octal_is_reported(tmp_path):
    data = bytearray(GOOD)
    data[MEMBER + 124 : MEMBER + 136] = b"99999999999\0"

    _, last = damaged(tmp_path, bytes(data))

    assert last.message.endswith("no tar header: a number is not octal")


def test_concatenated_tars_are_reported(tmp_path):
    keys, last = damaged(tmp_path, GOOD + tar_of([("x.jpg", b"x")]))

    assert keys == ["0", "1", "2", "3", "4", "5"]
    assert last.key == f"<damaged at byte {len(GOOD)}>"
    assert "another tar begins after the end marker (made with `cat`?); its files are not read" in last.message


def test_garbage_after_the_end_is_reported(tmp_path):
    keys, last = damaged(tmp_path, GOOD + bytes(3 << 20) + b"garbage")

    assert len(keys) == 6
    assert last.message.endswith("7 bytes that are not a tar follow the end marker")


@pytest.mark.parametrize("blocks", [1, 2, 3, 9])
def test_any_number_of_zero_blocks_is_an_end(tmp_path, blocks):
    assert len(read(shard_of(tmp_path / "a.tar", GOOD[: 6 * MEMBER] + bytes(512 * blocks)))) == 6


def test_every_cut_loses_only_what_was_cut(tmp_path):
    for cut in range(MEMBER, 6 * MEMBER, 97):
        keys, last = damaged(tmp_path, GOOD[:cut])
        assert len(keys) == (cut + 24) // MEMBER  # the last 24 bytes of a member are padding
        assert last.row == len(keys)


def test_a_cut_in_an_extended_header_is_reported(tmp_path):
    long = tar_of([("0.jpg", FILES[0][1]), ("n" * 700 + ".jpg", b"1")], tarfile.GNU_FORMAT)

    _, last = damaged(tmp_path, long[: MEMBER + 512 + 300])

    assert last.message.endswith("300 of 705 bytes of an extended header: the tar is cut")


def test_an_extended_header_of_absurd_size_is_damage(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 1 << 33
    data = GOOD[:MEMBER] + info.tobuf(tarfile.GNU_FORMAT) + GOOD[MEMBER:]

    _, last = damaged(tmp_path, data)

    assert last.message.endswith("an extended header of 8589934592 bytes")


@pytest.mark.parametrize("body", [b"0 path=x\n", b"99999 path=x\n", b"-5 path=x\n", b"junk", b"5 p", b"\0" * 9])
def test_malformed_pax_records_end_the_extended_header_only(tmp_path, body):
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", len(body)
    data = info.tobuf() + body.ljust(512, b"\0") + GOOD

    assert [row.key for row in read(shard_of(tmp_path / "a.tar", data))] == list("012345")


def test_a_sparse_file_is_reported(tmp_path):
    info = tarfile.TarInfo("holes.jpg")
    info.type = b"S"

    _, last = damaged(tmp_path, GOOD[:MEMBER] + info.tobuf(tarfile.GNU_FORMAT) + GOOD[MEMBER:])

    assert "'holes.jpg' is stored as a sparse file; pack the tar again without --sparse" in last.message


def test_the_damage_row_can_be_left_out(tmp_path):
    shard = shard_of(tmp_path / "a.tar", GOOD[: 3 * MEMBER])

    assert [row.row for row in read(shard, wanted={0, 2})] == [0, 2]
    assert [row.reason for row in read(shard, wanted={3})] == [Reason.SHARD_DAMAGED]


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b"", "0 bytes; restore the shard"),
        (b"not a tar", "nothing to read before byte 0: 9 of 512 bytes of a header"),
        (b"<html>" * 200, "nothing to read before byte 0: no tar header"),
        (GOOD[:700], "nothing to read before byte 0: '0.jpg' has 188 of 1000 bytes"),
        (gzip.compress(b"not a tar", mtime=0), "nothing to read before byte 0"),
        (b"\x1f\x8b" + bytes(50), "nothing to read before byte 0: .*gzip: Unknown compression method"),
    ],
)
def test_a_file_that_gives_nothing_is_unreadable(tmp_path, data, result):
    with pytest.raises(ShardUnreadable, match=rf"a\.tar: {result}"):
        read(shard_of(tmp_path / "a.tar", data))


def test_a_cut_gzip_gives_the_whole_members_before_the_cut(tmp_path):
    packed = gzip.compress(tar_of([(name, data) for name, data in FILES]), compresslevel=0)

    keys, last = damaged(tmp_path, packed[: 4 * MEMBER + 700], "a.tar.gz")

    assert keys == ["0", "1", "2", "3"]
    assert last.key == f"<damaged at byte {4 * MEMBER}>"
    assert last.message.endswith("(gzip: Compressed file ended before the end-of-stream marker was reached)")


def test_a_gzip_with_a_wrong_checksum_is_reported_after_all_its_rows(tmp_path):
    packed = bytearray(gzip.compress(GOOD))
    packed[-8] ^= 1

    keys, last = damaged(tmp_path, bytes(packed), "a.tar.gz")

    assert len(keys) == 6
    assert last.message.startswith(
        f"{tmp_path}/a.tar.gz: everything from byte {len(GOOD)} on is lost: gzip: CRC check failed"
    )


def test_a_gzip_in_several_parts_is_one_tar(tmp_path):
    packed = gzip.compress(GOOD[:2000]) + gzip.compress(GOOD[2000:])

    assert len(read(shard_of(tmp_path / "a.tgz", packed))) == 6


def test_garbage_after_a_gzip_is_reported(tmp_path):
    _, last = damaged(tmp_path, gzip.compress(GOOD) + b"garbage", "a.tgz")

    assert "gzip: Not a gzipped file" in last.message


def test_a_gzip_bomb_is_cut_and_reported(monkeypatch):
    monkeypatch.setattr("pipeline.readers.gunzip.ALWAYS_ALLOWED_BYTES", 1 << 20)
    packed = gzip.compress(bytes(32 << 20))

    unpacked, cut = gunzip(io.BytesIO(packed), len(packed))

    with unpacked:
        assert unpacked.seek(0, 2) < 6 << 20
    assert cut == f"gzip: unpacks to more than {len(packed) * 100} bytes; pack the shard again without gzip"
