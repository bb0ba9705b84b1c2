import gzip
import io
import json
import tarfile

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers import open_shard
from pipeline.readers.grouping import Member, group
from schemas.status import Reason
from tests.readers.shards import read, shard_of, tar_of


def rows_of(tmp_path, files, **options):
    return read(shard_of(tmp_path / "a.tar", tar_of(files)), **options)


def keys_and_data(rows):
    return [(row.key, row.data) for row in rows]


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_plain_tar_gives_its_images_in_order(tmp_path, tar_format):
    files = [("b.jpg", b"1"), ("b.txt", b"text"), ("a.jpg", b"22" * 300), ("a.txt", b"text"), ("c.png", b"")]

    rows = read(shard_of(tmp_path / "a.tar", tar_of(files, tar_format)))

    assert keys_and_data(rows) == [("b", b"1"), ("a", b"22" * 300), ("c", b"")]
    assert all(row.metadata == {} for row in rows)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_a_gzipped_tar_is_recognised_by_its_bytes(tmp_path, name):
    data = tar_of([("a.jpg", b"1"), ("b.jpg", b"2")])

    assert keys_and_data(read(shard_of(tmp_path / name, gzip.compress(data)))) == [("a", b"1"), ("b", b"2")]
    assert keys_and_data(read(shard_of(tmp_path / name, data))) == [("a", b"1"), ("b", b"2")]


def test_only_wanted_rows_are_given(tmp_path):
    files = [(f"{number}.jpg", b"%d" % number) for number in range(10)]

    assert [row.key for row in rows_of(tmp_path, files, wanted={9, 2, 77})] == ["2", "9"]
    assert rows_of(tmp_path, files, wanted=()) == []


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_names_of_any_script_are_kept(tmp_path, tar_format):
    names = ["x" * 150, "d" * 90 + "/" + "y" * 120, "z" * 300, "é-猫", "plain"]

    rows = read(shard_of(tmp_path / "a.tar", tar_of([(f"{name}.jpg", b"1") for name in names], tar_format)))

    assert [row.key for row in rows] == names


def test_a_ustar_prefix_belongs_to_the_name(tmp_path):
    name = "p" * 60 + "/" + "q" * 60

    assert [row.key for row in rows_of(tmp_path, [(f"{name}.jpg", b"1")])] == [name]


def test_bytes_that_are_no_utf8_become_escapes_that_differ(tmp_path):
    files = [("caf\udce9.jpg", b"1"), ("caf\udce8.jpg", b"2")]

    assert [row.key for row in rows_of(tmp_path, files)] == [r"caf\xe9", r"caf\xe8"]


def test_names_are_labels_and_never_paths(tmp_path):
    files = [("../../evil.jpg", b"1"), ("/etc/passwd.jpg", b"2"), ("a/../b.jpg", b"3")]

    assert [row.key for row in rows_of(tmp_path, files)] == ["../../evil", "/etc/passwd", "a/../b"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def header_of(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_symbolic_links_devices_and_folders_are_left_out_and_listed(tmp_path):
    kinds = (tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    extra = [header_of(f"link{number}.jpg", kind, "/etc/passwd") for number, kind in enumerate(kinds)]
    shard = shard_of(tmp_path / "a.tar", tar_of([("a.jpg", b"1")], extra=extra))

    assert keys_and_data(read(shard)) == [("a", b"1")]
    with open_shard(shard, SourceConfig(urls=(shard.url,)), 1 << 20) as opened:
        [left_out] = opened.left_out
    assert str(left_out) == (
        "3 files with the names of images are not read (links or devices inside a tar, which hold no bytes): "
        "link0.jpg, link1.jpg, link2.jpg"
    )


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["a", "./a", "x" * 150])
def test_a_hard_link_is_the_file_that_it_names(tmp_path, tar_format, name):
    links = [header_of("b.jpg", tarfile.LNKTYPE, f"{name}.jpg"), header_of("b.txt", tarfile.LNKTYPE, "a.txt")]
    data = tar_of([(f"{name}.jpg", b"x" * 600), ("a.txt", b"text")], tar_format, links)

    rows = read(shard_of(tmp_path / "a.tar", data), metadata_fields=("txt",))

    assert [(row.key, row.data) for row in rows if row.data] == [
        (name.removeprefix("./"), b"x" * 600),
        ("b", b"x" * 600),
    ]
    assert rows[-1].metadata == {"txt": "text"}


def test_a_hard_link_to_a_file_outside_the_tar_is_a_row_with_the_reason(tmp_path):
    links = [header_of("b.jpg", tarfile.LNKTYPE, "/etc/passwd"), header_of("b.txt", tarfile.LNKTYPE, "/etc/passwd")]

    rows = read(shard_of(tmp_path / "a.tar", tar_of([("a.jpg", b"1")], extra=links)), metadata_fields=("*",))

    assert [(row.key, row.data, row.reason) for row in rows] == [
        ("a", b"1", None),
        ("b", None, Reason.MISSING_IMAGE),
    ]
    assert rows[1].message.endswith(
        "b.jpg: a hard link to '/etc/passwd', which does not come before it in this tar; pack that file along"
    )


@pytest.mark.parametrize("kind", [b"9", b"Z", b"V"])
def test_an_image_of_an_unknown_type_is_read_as_a_file(tmp_path, kind):
    data = bytearray(tar_of([("a.jpg", b"x" * 700), ("README.d", b"2"), ("b.jpg", b"3")]))
    for start in (0, 512 + 1024):
        data[start + 156 : start + 157] = kind
        data[start + 148 : start + 156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])

    rows = read(shard_of(tmp_path / "a.tar", bytes(data)))

    assert keys_and_data(rows) == [("a", b"x" * 700), ("b", b"3")]


def test_folders_of_windows_belong_to_the_key(tmp_path):
    names = [".\\a.jpg", "x.v1\\a.jpg", "x.jpg", "x.v1\\c.d.jpg", "y/x.v1\\b.jpg", "x.v1\\a.mask.png"]

    rows = rows_of(tmp_path, [(name, name.encode()) for name in [*names, "x.v1\\a.txt"]], metadata_fields=("txt",))

    assert [row.key for row in rows] == [".\\a", "x.v1\\a", "x", "x.v1\\c.d", "y/x.v1\\b"]
    assert [row.data.decode() for row in rows] == names[:5]
    assert rows[1].metadata == {"txt": "x.v1\\a.txt"}


def test_a_size_in_base_256_is_read(tmp_path):
    data = bytearray(tar_of([("a.jpg", b"x" * 700), ("b.jpg", b"2")]))
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])

    rows = read(shard_of(tmp_path / "a.tar", bytes(data)))

    assert keys_and_data(rows) == [("a", b"x" * 700), ("b", b"2")]


def test_a_checksum_over_signed_bytes_is_accepted(tmp_path):
    data = bytearray(tar_of([("caf\udce9.jpg", b"1")]))
    data[148:156] = b"%06o\0 " % (int(bytes(data[148:154]), 8) - 256)

    assert [row.key for row in read(shard_of(tmp_path / "a.tar", bytes(data)))] == [r"caf\xe9"]


def test_a_pax_size_wins_over_the_header(tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.size, info.pax_headers = 3, {"size": "3", "comment": "x" * 600}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"abc"))
    data = bytearray(buffer.getvalue())
    header = data.index(b"a.jpg\0")
    data[header + 124 : header + 136] = b"00000000000\0"
    data[header + 148 : header + 156] = b" " * 8
    data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])

    assert keys_and_data(read(shard_of(tmp_path / "a.tar", bytes(data)))) == [("a", b"abc")]


def test_a_tar_of_no_files_has_no_rows(tmp_path):
    assert read(shard_of(tmp_path / "a.tar", tar_of([]))) == []
    assert read(shard_of(tmp_path / "b.tar", bytes(1024))) == []


def test_files_of_one_key_belong_together_wherever_they_lie(tmp_path):
    files = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"of a"), ("b.txt", b"of b")]

    rows = rows_of(tmp_path, files, metadata_fields=("txt",))

    assert [(row.key, row.metadata) for row in rows] == [("a", {"txt": "of a"}), ("b", {"txt": "of b"})]


def test_a_repeated_file_begins_a_new_sample_of_the_same_key(tmp_path):
    files = [("a.jpg", b"1"), ("a.txt", b"one"), ("a.jpg", b"2"), ("a.txt", b"two"), ("a.jpg", b"3")]

    rows = rows_of(tmp_path, files, metadata_fields=("txt",))

    assert keys_and_data(rows) == [("a", b"1"), ("a", b"2"), ("a", b"3")]
    assert [row.metadata.get("txt") for row in rows] == ["one", "two", None]


def test_folders_belong_to_the_key(tmp_path):
    files = [("x/a.jpg", b"1"), ("y/a.jpg", b"2"), ("x/a.txt", b"of x"), ("./a.jpg", b"3"), ("./Y.z/a.jpg", b"4")]

    rows = rows_of(tmp_path, files, metadata_fields=("txt",))

    assert keys_and_data(rows) == [("x/a", b"1"), ("y/a", b"2"), ("a", b"3"), ("Y.z/a", b"4")]
    assert rows[0].metadata == {"txt": "of x"}
    assert rows[1].metadata == {}


def test_extensions_of_any_case_and_of_undecodable_kinds_are_images(tmp_path):
    names = ["a.JPG", "b.jpeg", "c.WebP", "d.heic", "e.psd", "f.svg", "g.image", "h.TIFF", "i.ppm"]

    assert [row.key for row in rows_of(tmp_path, [(name, b"1") for name in names])] == list("abcdefghi")


def test_dotted_names_keep_every_image_and_its_own_text(tmp_path):
    files = [
        ("img.v1.2.jpg", b"1"), ("img.v1.2.txt", b"text 1"), ("img.v1.3.JPG", b"2"), ("img.v1.3.txt", b"text 2"),
        ("img.json", b'{"of": "all"}'), ("d/Pic.Final.png", b"3"),
    ]  # fmt: skip

    rows = rows_of(tmp_path, files, metadata_fields=("txt", "of"))

    assert keys_and_data(rows) == [("img.v1.2", b"1"), ("img.v1.3", b"2"), ("d/Pic.Final", b"3")]
    assert [row.metadata for row in rows] == [{"of": "all", "txt": "text 1"}, {"of": "all", "txt": "text 2"}, {}]


def test_images_beside_a_plain_one_are_side_files(tmp_path):
    files = [("a.mask.png", b"m"), ("a.jpg", b"1"), ("a.cond.jpg", b"c"), ("b.jpg", b"2")]

    assert keys_and_data(rows_of(tmp_path, files)) == [("a", b"1"), ("b", b"2")]


def test_two_plain_images_of_one_key_are_two_rows(tmp_path):
    files = [("a.jpg", b"1"), ("a.txt", b"both"), ("a.png", b"2")]

    rows = rows_of(tmp_path, files, metadata_fields=("*",))

    assert [(row.key, row.data, row.metadata) for row in rows] == [
        ("a", b"1", {"txt": "both"}),
        ("a", b"2", {"txt": "both"}),
    ]


def test_files_that_belong_to_no_sample_are_ignored(tmp_path):
    names = ["README", "LICENSE", ".DS_Store", "._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/a.jpg", "x/__MACOSX/a.jpg"]
    files = [(name, b"x") for name in [*names, "__index__.json", "d/.hidden.jpg", "trailing."]]

    assert keys_and_data(rows_of(tmp_path, [*files, ("a.jpg", b"1")])) == [("a", b"1")]


def test_a_sample_without_an_image_is_a_row_with_the_reason(tmp_path):
    rows = rows_of(tmp_path, [("a.txt", b"t"), ("a.json", b"{}"), ("b.jpg", b"1")], metadata_fields=("txt",))

    assert (rows[0].key, rows[0].data, rows[0].reason) == ("a", None, Reason.MISSING_IMAGE)
    assert rows[0].message == "no image among its files (json, txt)"
    assert rows[0].metadata == {"txt": "t"}
    assert rows[1].data == b"1"


def test_img2dataset_samples_give_their_fields_and_their_failures(tmp_path):
    good = {"key": "000000000", "status": "success", "error_message": None, "width": 9, "caption": "a cat"}
    bad = {"key": "000000001", "status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}
    files = [
        ("000000000.jpg", b"1"), ("000000000.txt", b"a cat"), ("000000000.json", json.dumps(good).encode()),
        ("000000001.json", json.dumps(bad).encode()),
    ]  # fmt: skip

    rows = rows_of(tmp_path, files, metadata_fields=("caption", "width", "txt", "absent"))

    assert rows[0].metadata == {"caption": "a cat", "width": 9, "txt": "a cat"}
    assert rows[1].reason == Reason.MISSING_IMAGE
    assert rows[1].message == "no image among its files (json); error_message: HTTP Error 404: Not Found"


def test_a_star_carries_all_texts_and_no_bytes(tmp_path):
    files = [
        ("a.jpg", b"1"), ("a.json", b'{"tags": ["x", {"n": NaN}], "big": 1e999}'), ("a.cls", b"7"), ("a.npy", b"\x93N"),
        ("a.caption.txt", "schön\xff".encode("latin-1")), ("a.long.txt", b"x" * (1 << 20) + b"y"),
    ]  # fmt: skip

    [row] = rows_of(tmp_path, files, metadata_fields=("*",))

    assert row.metadata == {"tags": ["x", {"n": None}], "big": None, "cls": "7", "caption.txt": "sch\ufffdn\ufffd"}
    assert json.dumps(row.metadata, allow_nan=False)


def test_the_whole_json_can_be_carried(tmp_path):
    [row] = rows_of(tmp_path, [("a.jpg", b"1"), ("a.json", b'{"x": {"y": [1]}}')], metadata_fields=("json",))

    assert row.metadata == {"json": {"x": {"y": [1]}}}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"x": ', "JSONDecodeError: Expecting value: line 1 column 7 (char 6)"),
        (b"[1]", "holds list, not an object"),
        (b"[" * 100_000, "RecursionError: maximum recursion depth exceeded while decoding a JSON array"),
        (b'{"x": "\xff\xff"}', "UnicodeDecodeError: "),
        (b" " * (1 << 20) + b"{}", "1048578 bytes, more than 1048576"),
    ],
)
@pytest.mark.parametrize("carry", ["tags", "*"])
def test_json_that_does_not_parse_is_reported_in_the_row(tmp_path, text, error, carry):
    [row] = rows_of(tmp_path, [("a.jpg", b"1"), ("a.json", text)], metadata_fields=(carry,))

    assert row.data == b"1"
    assert list(row.metadata) == ["json_error"]
    assert row.metadata["json_error"].startswith(error)


def test_carried_values_are_valid_utf8(tmp_path):
    [row] = rows_of(tmp_path, [("a.jpg", b"1"), ("a.json", rb'{"x": "\ud800", "\udfff": 1}')], metadata_fields=("*",))

    assert row.metadata == {"x": "?", "?": 1}


def test_a_selected_text_that_is_too_long_is_reported_in_the_row(tmp_path):
    [row] = rows_of(tmp_path, [("a.jpg", b"1"), ("a.txt", b"x" * ((1 << 20) + 1))], metadata_fields=("txt",))

    assert row.metadata == {"txt_error": "1048577 bytes, more than 1048576"}


def test_an_image_beyond_max_bytes_is_not_read(tmp_path):
    rows = rows_of(tmp_path, [("a.jpg", b"x" * 101), ("b.jpg", b"x" * 100)], max_bytes=100)

    assert (rows[0].data, rows[0].reason) == (None, Reason.TOO_MANY_BYTES)
    assert rows[0].message == "101 bytes, more than max_bytes=100"
    assert rows[1].data == b"x" * 100


def test_a_tar_without_any_sample_is_unreadable(tmp_path):
    shard = shard_of(tmp_path / "a.tar", tar_of([("photos/0001", b"1"), ("photos/0002", b"2")]))

    with pytest.raises(ShardUnreadable, match=r"a\.tar: 2 files and no sample, the first is 'photos/0001'; an image's"):
        read(shard)


def test_side_images_and_ignored_files_are_counted():
    members = [Member(name, 0, 0) for name in ("a.jpg", "a.mask.png", "README", "b.x.jpg", "b.y.jpg", "c.txt")]

    grouping = group(members)

    assert [sample.key for sample in grouping.samples] == ["a", "b.x", "b.y", "c"]
    assert (grouping.side_images, grouping.ignored) == (1, 1)
    [beside] = grouping.left_out
    assert (beside.num_files, beside.names) == (1, ("a.mask.png",))


def test_images_among_ignored_files_are_counted_and_the_first_are_named():
    names = [*(f"__MACOSX/{number}.jpg" for number in range(5)), "README", ".DS_Store", "jpg", "a.jpg"]

    [hidden] = group([Member(name, 0, 0) for name in names]).left_out

    assert str(hidden) == (
        "5 files with the names of images are not read (hidden, an index or below __MACOSX): "
        "__MACOSX/0.jpg, __MACOSX/1.jpg, __MACOSX/2.jpg, ..."
    )
