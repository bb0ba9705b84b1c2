import time
from pathlib import Path

import fsspec
import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.readers import list_shards
from schemas.shard import Shard


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))


def listed(*urls) -> list[str]:
    return [shard.path for shard in list_shards(SourceConfig(urls=tuple(str(url) for url in urls)))]


@pytest.fixture
def memory():
    """An object store in this process, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()


def test_a_folder_gives_all_its_shards_sorted_and_no_side_files(tmp_path):
    touch(tmp_path, "b.tar", "a/x.tar.gz", "a/y.tgz", "c.parquet", "D.TAR", "_stats.json", "b.json", "a/x.txt", "tar")

    shards = list_shards(SourceConfig(urls=(str(tmp_path),)))

    assert [shard.path for shard in shards] == ["D.TAR", "a/x.tar.gz", "a/y.tgz", "b.tar", "c.parquet"]
    assert [shard.url for shard in shards] == [str(tmp_path / shard.path) for shard in shards]
    assert [shard.size for shard in shards] == [5, 10, 7, 5, 9]
    assert shards[3].etag == f"mtime-{(tmp_path / 'b.tar').stat().st_mtime_ns}"


def test_a_glob_is_relative_to_its_part_before_the_first_wildcard(tmp_path):
    touch(tmp_path, "set/x/1.tar", "set/x/2.tar", "set/y/1.tar", "set/y/1.json", "other/1.tar")

    assert listed(tmp_path / "set/*/1.tar") == ["x/1.tar", "y/1.tar"]
    assert listed(tmp_path / "set/**/*.tar") == ["x/1.tar", "x/2.tar", "y/1.tar"]
    assert listed(tmp_path / "set/y/*") == ["1.tar"]
    assert listed(tmp_path / "set/x/[2-9].tar") == ["2.tar"]
    assert listed(tmp_path / "set/?/1.tar") == ["x/1.tar", "y/1.tar"]


def test_a_single_file_is_relative_to_its_folder(tmp_path):
    touch(tmp_path, "x/1.tar")

    assert listed(tmp_path / "x/1.tar") == ["1.tar"]


def test_a_list_is_relative_to_the_longest_folder_that_its_roots_share(tmp_path):
    touch(tmp_path, "set/x/1.tar", "set/xy/1.tar", "set/y/1.tar", "set/y/2.parquet")

    assert listed(tmp_path / "set/x", tmp_path / "set/xy/*.tar", tmp_path / "set/y/2.parquet") == [
        "x/1.tar",
        "xy/1.tar",
        "y/2.parquet",
    ]


def test_a_shard_named_twice_counts_once(tmp_path):
    touch(tmp_path, "1.tar", "2.tar")

    assert listed(tmp_path, tmp_path / "1.tar", tmp_path / "*.tar") == ["1.tar", "2.tar"]


def test_paths_are_made_absolute_and_plain(tmp_path, monkeypatch):
    touch(tmp_path, "set/1.tar", "other/x")
    monkeypatch.chdir(tmp_path)

    assert listed("set") == listed("set/") == listed("./other/../set") == ["1.tar"]
    [shard] = list_shards(SourceConfig(urls=("other/../set",)))
    assert shard.url == str(tmp_path / "set/1.tar")


def test_links_are_followed_and_described_by_their_target(tmp_path):
    touch(tmp_path, "blobs/abc", "set/x")
    (tmp_path / "set/1.tar").symlink_to(tmp_path / "blobs/abc")

    [shard] = list_shards(SourceConfig(urls=(str(tmp_path / "set"),)))

    assert (shard.path, shard.size) == ("1.tar", 9)
    assert shard.etag == f"mtime-{(tmp_path / 'blobs/abc').stat().st_mtime_ns}"


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "1.tar").symlink_to(tmp_path / "absent")

    with pytest.raises(ConfigError, match=r"1\.tar: No such file or directory; remove the link"):
        listed(tmp_path)


def test_shards_of_an_object_store_have_full_urls(memory):
    memory.pipe({"/bucket/set/a/1.tar": b"12", "/bucket/set/b.parquet": b"1", "/bucket/set/_stats.json": b"{}"})

    shards = list_shards(SourceConfig(urls=("memory://bucket/set",)))

    assert [(shard.path, shard.url, shard.size) for shard in shards] == [
        ("a/1.tar", "memory:///bucket/set/a/1.tar", 2),
        ("b.parquet", "memory:///bucket/set/b.parquet", 1),
    ]
    assert all(shard.etag for shard in shards)
    assert listed("memory://bucket/set/**/*.tar") == ["a/1.tar"]
    assert listed("memory://bucket/set/a/1.tar", "memory://bucket/set/b.parquet") == ["a/1.tar", "b.parquet"]


def test_an_object_that_changes_has_another_etag(memory):
    memory.pipe("/bucket/1.tar", b"1")
    before = list_shards(SourceConfig(urls=("memory://bucket",)))
    memory.pipe("/bucket/1.tar", b"2")

    assert list_shards(SourceConfig(urls=("memory://bucket",))) != before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("absent", r"absent: not found; give a folder, a glob or a shard that exists"),
        (
            "*.tar",
            r"\*\.tar: no shard found; allowed: \.tar, \.tar\.gz, \.tgz, \.zip, \.parquet, or a folder of images$",
        ),
        ("{0..9}.tar", r"no shard found|not found"),
        ("empty", r"empty: no shard found; allowed: \.tar"),
        ("urls.csv", r"urls\.csv: a list of URLs, not of images; download it first with img2dataset"),
        ("urls.jsonl", r"a list of URLs, not of images; .*img2dataset"),
        ("urls.json", r"a list of URLs, not of images; .*img2dataset"),
        ("urls", r"urls: no shard found; .*; if its tables list URLs, download it first with img2dataset"),
        ("arrow", r"arrow: no shard found; .*`save_to_disk` are not read: write the data set with `to_parquet`"),
        ("loose/*.jpg", r"no shard found; .*; it has 2 loose images: give their folder, not a glob"),
        (
            "loose/a.jpg",
            r"a\.jpg: not a shard; allowed: \.tar, \.tar\.gz, \.tgz, \.zip, \.parquet, or a folder or glob",
        ),
    ],
)
def test_an_entry_without_shards_is_refused(tmp_path, url, message):
    touch(tmp_path, "empty/x.json", "urls.csv", "urls.jsonl", "urls.json", "urls/x.csv.gz", "arrow/x.arrow")
    touch(tmp_path, "loose/a.jpg", "loose/b.jpg")

    with pytest.raises(ConfigError, match=message):
        listed(tmp_path / url)


def test_one_entry_without_shards_spoils_the_list(tmp_path):
    touch(tmp_path, "1.tar")

    with pytest.raises(ConfigError, match="absent: not found"):
        listed(tmp_path, tmp_path / "absent")


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (("nostore://x",), r"nostore://x: Protocol not known: .*; allowed: local paths and the URLs of fsspec"),
        (("memory://x", "local"), r"in 2 kinds of stores; allowed: one kind per run"),
    ],
)
def test_stores_that_cannot_be_read_together_are_refused(urls, message):
    with pytest.raises(ConfigError, match=message):
        listed(*urls)


def test_an_object_name_that_cannot_be_a_path_is_refused(memory):
    memory.pipe("/bucket/a//1.tar", b"1")

    with pytest.raises(ConfigError, match=r"path 'a//1\.tar' has an empty, `\.` or `\.\.` part"):
        listed("memory://bucket")


def test_a_folder_that_may_not_be_read_is_reported(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(fsspec.filesystem("memory"), "info", refuse)

    with pytest.raises(
        ConfigError, match=r"memory://b: cannot be listed \(PermissionError: Access Denied\); check the"
    ):
        listed("memory://b")


def test_30_000_shards_are_listed_without_a_request_for_each(memory, monkeypatch):
    memory.pipe({f"/bucket/{number // 1000}/{number}.tar": b"x" for number in range(30_000)})
    asked = []
    info = memory.info
    monkeypatch.setattr(memory, "info", lambda path, **kwargs: asked.append(path) or info(path, **kwargs))
    start = time.process_time()

    shards = list_shards(SourceConfig(urls=("memory://bucket",)))

    assert len({shard.path for shard in shards}) == 30_000
    assert len(asked) < 10
    assert time.process_time() - start < 10


def test_shards_pickle_and_compare():
    assert Shard("a", "b", 1, "c") == Shard("a", "b", 1, "c")
    assert hash(Shard("a", "b", 1, "c")) == hash(Shard("a", "b", 1, "c"))
