"""The readers against a real S3 server: what a listing tells, and what a read gives."""

import hashlib

import pytest
import s3fs

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, ShardUnreadable
from pipeline.readers import list_shards, open_head
from tests.readers.shards import read, tar_of

pytestmark = pytest.mark.slow

DATA = tar_of([("a.jpg", b"1"), ("b.jpg", b"2")])
SOURCE = SourceConfig(urls=("s3://out/readers",))


@pytest.fixture
def s3(s3_environment):
    fs = s3fs.S3FileSystem()
    fs.pipe_file("out/readers/x/1.tar", DATA)
    fs.pipe_file("out/readers/2.tar", DATA)
    fs.pipe_file("out/readers/2_stats.json", b"{}")
    yield fs
    fs.rm("out/readers", recursive=True)


def test_a_listing_has_paths_sizes_and_bare_etags(s3):
    etag = hashlib.md5(DATA).hexdigest()

    assert [(shard.path, shard.url, shard.size, shard.etag) for shard in list_shards(SOURCE)] == [
        ("2.tar", "s3://out/readers/2.tar", len(DATA), etag),
        ("x/1.tar", "s3://out/readers/x/1.tar", len(DATA), etag),
    ]


def test_globs_and_single_objects_are_listed(s3):
    glob = SourceConfig(urls=("s3://out/readers/**/*.tar",))
    single = SourceConfig(urls=("s3://out/readers/x/1.tar",))

    assert [shard.path for shard in list_shards(glob)] == ["2.tar", "x/1.tar"]
    assert [(shard.path, shard.etag) for shard in list_shards(single)] == [("1.tar", hashlib.md5(DATA).hexdigest())]


def test_a_new_object_is_seen_by_the_same_process(s3):
    source = SourceConfig(urls=("s3://out/readers/*.tar",))
    before = list_shards(source)
    s3fs.S3FileSystem(skip_instance_cache=True).pipe_file("out/readers/3.tar", DATA)

    assert len(list_shards(source)) == len(before) + 1


def test_shards_are_read(s3):
    assert [[row.data for row in read(shard)] for shard in list_shards(SOURCE)] == [[b"1", b"2"]] * 2


def test_a_shard_replaced_after_the_plan_by_one_of_the_same_size_is_refused(s3):
    planned = list_shards(SOURCE)
    s3.pipe_file("out/readers/2.tar", tar_of([("a.jpg", b"3"), ("b.jpg", b"4")]))

    with pytest.raises(ShardUnreadable, match=r"2\.tar: changed since the plan, etag \w+ instead of \w+; restore it"):
        read(planned[0])
    assert [row.data for row in read(planned[1])] == [b"1", b"2"]


def test_the_head_of_a_shard_is_read_by_ranges(s3):
    members = [(f"{number:04d}.jpg", bytes([number % 256]) * 50_000) for number in range(60)]
    s3.pipe_file("out/readers/2.tar", tar_of(members))
    [shard, _] = list_shards(SOURCE)
    with open_head(shard, SOURCE, 1 << 20, 5) as head:
        assert head.num_images == 5
        assert [(row.row, row.data) for row in head.rows({2, 4})] == [(2, members[2][1]), (4, members[4][1])]


def test_a_missing_object_or_bucket_is_reported(s3):
    [shard, _] = list_shards(SOURCE)
    s3.rm_file("out/readers/2.tar")

    with pytest.raises(ShardUnreadable, match=r"s3://out/readers/2\.tar: cannot be read \(FileNotFoundError"):
        read(shard)
    with pytest.raises(ConfigError, match=r"s3://no-such-bucket/x: not found"):
        list_shards(SourceConfig(urls=("s3://no-such-bucket/x",)))
