import os

import fsspec
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, ShardUnreadable
from pipeline.readers import list_shards, list_source, open_shard
from tests.readers.shards import MAX_BYTES


def fill(root, *names, data=b"x"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data + name.encode())


def config(*urls, **rest):
    return SourceConfig(urls=tuple(map(str, urls)), **rest)


def rows_of(source, shard):
    with open_shard(shard, source, MAX_BYTES) as opened:
        rows = list(opened.rows(None))
        assert opened.num_images == len(rows)
    return rows


def test_every_image_is_in_one_shard_in_sorted_order(tmp_path):
    names = [f"{folder}/{number:03d}.jpg" for folder in ("b", "a", "a/x") for number in range(7)]
    fill(tmp_path, *names, "a/003.txt", "notes.txt", "c.PNG", "é, #1.jpg")
    source = config(tmp_path, images_per_shard=5, metadata_fields=("*",))

    shards = list_shards(source)

    assert [shard.path for shard in shards] == [f"images-{number:05d}" for number in range(5)]
    rows = [row for shard in shards for row in rows_of(source, shard)]
    assert [row.data.decode()[1:] for row in rows] == [*sorted(names, key=lambda name: name[:-4]), "c.PNG", "é, #1.jpg"]
    assert [row.key for row in rows][-2:] == ["c", "é, #1"]
    assert [row.metadata for row in rows if row.metadata] == [{"txt": "xa/003.txt"}]
    assert sum(shard.size for shard in shards) == sum(len(row.data) for row in rows)


def test_a_listing_gives_the_same_shards_again(tmp_path):
    fill(tmp_path, *(f"{number}.jpg" for number in range(10)))
    source = config(tmp_path, images_per_shard=3)

    assert list_shards(source) == list_shards(source)


def test_images_of_one_name_are_never_parted(tmp_path):
    fill(tmp_path, "a.jpg", "a.png", "b.jpg", "b.png", "a.txt")
    source = config(tmp_path, images_per_shard=1)

    assert [[row.key for row in rows_of(source, shard)] for shard in list_shards(source)] == [["a", "a"], ["b", "b"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: fill(root, "1.jpg", data=b"yy"),
        lambda root: (root / "1.jpg").unlink(),
        lambda root: fill(root, "0b.jpg"),
        lambda root: (root / "1.jpg").rename(root / "1c.jpg"),
    ],
    ids=["another-size", "gone", "one-more", "another-name"],
)
def test_a_changed_image_changes_its_shard_and_no_other(tmp_path, change):
    fill(tmp_path, *(f"{number}.jpg" for number in range(4)))
    source = config(tmp_path, images_per_shard=2)
    before = list_shards(source)

    change(tmp_path)

    with pytest.raises(ShardUnreadable, match=r"images|gone|is gone"):
        rows_of(source, before[0])
    assert [row.key for row in rows_of(source, before[1])] == ["2", "3"]


def test_a_text_beside_an_image_may_be_written_at_any_time(tmp_path):
    fill(tmp_path, "1.jpg", "2.jpg")
    source = config(tmp_path, metadata_fields=("txt",))
    [before] = list_shards(source)

    fill(tmp_path, "1.txt")

    assert list_shards(source) == [before]
    assert [row.metadata for row in rows_of(source, before)] == [{"txt": "x1.txt"}, {}]


def test_an_image_that_vanishes_while_its_shard_is_read_is_reported(tmp_path):
    fill(tmp_path, "1.jpg", "2.jpg")
    source = config(tmp_path)
    [shard] = list_shards(source)

    with open_shard(shard, source, MAX_BYTES) as opened:
        (tmp_path / "2.jpg").unlink()
        with pytest.raises(ShardUnreadable, match=r"changed since the plan, 2\.jpg is gone"):
            list(opened.rows(None))


def test_a_folder_in_an_object_store_is_read_in_stretches(monkeypatch):
    monkeypatch.setattr("pipeline.readers.folder.AHEAD_FILES", 4)
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pipe({f"/bucket/set/{number:02d}.jpg": f"{number:02d}".encode() for number in range(10)})
    fs.pipe("/bucket/set/03.txt", b"three")
    asked = []
    cat = fs.cat
    monkeypatch.setattr(fs, "cat", lambda paths: asked.append(len(paths)) or cat(paths))
    source = config("memory://bucket/set", images_per_shard=8, metadata_fields=("*",))

    shards = list_shards(source)

    assert [shard.url for shard in shards] == ["memory:///bucket/set#00,07", "memory:///bucket/set#08,09"]
    rows = [row for shard in shards for row in rows_of(source, shard)]
    assert [row.data.decode() for row in rows] == [f"{number:02d}" for number in range(10)]
    assert rows[3].metadata == {"txt": "three"}
    assert max(asked) == 4
    fs.pipe("/bucket/set/01.jpg", b"changed")
    with pytest.raises(ShardUnreadable, match="changed since the plan, etag"):
        rows_of(source, shards[0])
    fs.store.clear()


def test_shards_win_over_loose_images_and_this_is_reported(tmp_path):
    fill(tmp_path, "1.tar", "cover.jpg")

    result = list_source(config(tmp_path))

    assert [shard.path for shard in result.shards] == ["1.tar"]
    assert result.remarks == (f"{tmp_path}: 1 loose images beside 1 shards are not read",)


def test_a_table_beside_images_is_no_shard(tmp_path):
    fill(tmp_path, "cat/1.jpg", "metadata.parquet")

    result = list_source(config(tmp_path))

    assert [shard.path for shard in result.shards] == ["images-00000"]
    assert result.remarks == (f"{tmp_path}: metadata.parquet is not read",)


def test_folders_beside_each_other_keep_their_names(tmp_path):
    fill(tmp_path, "cats/1.jpg", "dogs/1.jpg", "more/1.tar", "birds/1.jpg")
    source = config(tmp_path / "cats", tmp_path / "dogs", tmp_path / "more")

    shards = list_shards(source)

    assert [shard.path for shard in shards] == ["cats/images-00000", "dogs/images-00000", "more/1.tar"]
    assert rows_of(source, shards[1])[0].data == b"xdogs/1.jpg"


def test_folders_that_overlap_are_refused(tmp_path):
    fill(tmp_path, "all/1.jpg", "all/sub/2.jpg")

    with pytest.raises(ConfigError, match=r"all and .*/sub overlap, so images would count twice"):
        list_shards(config(tmp_path / "all", tmp_path / "all/sub"))


def test_a_dotted_name_is_a_picture_of_its_own_with_its_own_text(tmp_path):
    fill(tmp_path, "figure1.jpg", "figure1.1.jpg", "figure1.mask.png", "a.b.c/x.jpg", "img.v1.2.jpg", "img.v1.3.JPG")
    fill(tmp_path, "figure1.txt", "figure1.1.txt", "figure1.tags.txt", "figure1.1.tags.txt", "img.v1.3.json.txt")
    source = config(tmp_path, metadata_fields=("*",), images_per_shard=4)

    rows = [row for shard in list_shards(source) for row in rows_of(source, shard)]

    assert {row.key: row.data.decode()[1:] for row in rows} == {
        "a.b.c/x": "a.b.c/x.jpg",
        "figure1": "figure1.jpg",
        "figure1.1": "figure1.1.jpg",
        "figure1.mask": "figure1.mask.png",
        "img.v1.2": "img.v1.2.jpg",
        "img.v1.3": "img.v1.3.JPG",
    }
    assert {row.key: sorted(row.metadata) for row in rows if row.metadata} == {
        "figure1": ["tags.txt", "txt"],
        "figure1.1": ["tags.txt", "txt"],
        "img.v1.3": ["json.txt"],
    }
    assert list_source(source).remarks == ()


def test_a_text_of_an_image_of_the_next_shard_is_not_used_for_this_shard(tmp_path):
    fill(tmp_path, "a.jpg", "a.b.jpg", "a.b.txt")
    source = config(tmp_path, metadata_fields=("*",), images_per_shard=1)

    rows = [row for shard in list_shards(source) for row in rows_of(source, shard)]

    assert [(row.key, row.metadata) for row in rows] == [("a", {}), ("a.b", {"txt": "xa.b.txt"})]


def test_folders_without_dotted_names_are_the_shards_that_they_were(tmp_path):
    """Etags of release 0.1, which outputs of that time hold."""
    names = ["b/000.jpg", "a/001.JPG", "a/001.png", "a/x/002.webp", "é, #1.jpg", "c.PNG", "z\\y.jpg"]
    for number, name in enumerate(names):
        fill(tmp_path, name)
        (tmp_path / name).write_bytes(b"x" * (number + 1))
        os.utime(tmp_path / name, ns=(10**18 + number, 10**18 + number))
    fill(tmp_path, "a/001.txt", "a/001.tags.txt", "notes.txt")
    source = config(tmp_path, images_per_shard=3, metadata_fields=("*",))

    shards = list_shards(source)

    assert [(shard.url.rpartition("#")[2], shard.size, shard.etag) for shard in shards] == [
        ("a/001,b/000", 10, "images-1090e57917138909cae6af827cad1ea0"),
        ("c,%C3%A9%2C%20%231", 18, "images-3f237c87ee7ef4c4516b5e03361e7677"),
    ]
    rows = [row for shard in shards for row in rows_of(source, shard)]
    assert [(row.row, row.key, len(row.data), sorted(row.metadata)) for row in rows] == [
        (0, "a/001", 2, ["tags.txt", "txt"]),
        (1, "a/001", 3, ["tags.txt", "txt"]),
        (2, "a/x/002", 4, []),
        (3, "b/000", 1, []),
        (0, "c", 6, []),
        (1, "z\\y", 7, []),
        (2, "é, #1", 5, []),
    ]


def test_images_that_are_hidden_are_named(tmp_path):
    fill(tmp_path, "a.jpg", "._a.jpg", "__MACOSX/b.jpg", ".DS_Store", "notes.txt")

    assert list_source(config(tmp_path)).remarks == (
        f"{tmp_path}: 2 files with the names of images are not read (hidden, an index or below __MACOSX): "
        "._a.jpg, __MACOSX/b.jpg",
    )


def test_pipes_and_links_to_devices_are_left_out_and_listed(tmp_path):
    fill(tmp_path, "a.jpg", "b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").symlink_to(tmp_path / "nothing")
    source = config(tmp_path, metadata_fields=("*",))

    result = list_source(source)

    assert [row.key for shard in result.shards for row in rows_of(source, shard)] == ["a", "b"]
    assert result.remarks == (
        f"{tmp_path}: 1 file with the name of an image is not read (a named pipe, not a regular file): pipe.jpg",
        f"{tmp_path}: 1 file with the name of an image is not read (a character device, not a regular file): zero.jpg",
    )


@pytest.mark.parametrize("odd", ["pipe", "device"])
def test_an_image_that_becomes_a_pipe_or_a_device_does_not_block_its_reader(tmp_path, odd):
    fill(tmp_path, "a.jpg", "b.jpg")
    source = config(tmp_path)
    [shard] = list_shards(source)

    with open_shard(shard, source, MAX_BYTES) as opened:
        (tmp_path / "b.jpg").unlink()
        os.mkfifo(tmp_path / "b.jpg") if odd == "pipe" else (tmp_path / "b.jpg").symlink_to("/dev/zero")
        with pytest.raises(ShardUnreadable, match=r"a (named pipe|character device), not a regular file"):
            list(opened.rows(None))


def test_an_image_overwritten_in_place_with_as_many_bytes_is_reported(tmp_path):
    fill(tmp_path, "a.jpg", "b.jpg")
    source = config(tmp_path)
    [shard] = list_shards(source)

    with open_shard(shard, source, MAX_BYTES) as opened:
        fill(tmp_path, "b.jpg", data=b"y")
        os.utime(tmp_path / "b.jpg", ns=(1, 1))
        with pytest.raises(ShardUnreadable, match=r"changed since the plan, b\.jpg has mtime-1 instead of mtime-"):
            list(opened.rows(None))
