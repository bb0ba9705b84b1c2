"""How shards reach the local disk: from disk and from object stores, and what happens when they do not."""

import gzip
import os
import tempfile
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, ShardUnreadable
from pipeline.readers import list_shards, open_shard
from schemas.shard import Shard
from tests.readers.shards import MAX_BYTES, read, shard_of, tar_of

DATA = tar_of([("a.jpg", b"1"), ("b.jpg", b"2")])


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """An object store with one shard; temporary files go to `tmp_path`, and no try waits."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pipe("/bucket/1.tar", DATA)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("pipeline.readers.transport.RETRY_S", 0.0)
    yield fs
    fs.store.clear()


def remote_shard() -> Shard:
    [shard] = list_shards(SourceConfig(urls=("memory://bucket",)))
    return shard


def test_a_remote_shard_is_read(remote):
    assert [(row.key, row.data) for row in read(remote_shard())] == [("a", b"1"), ("b", b"2")]


def test_a_remote_gzip_shard_is_read(remote):
    remote.pipe("/bucket/1.tar", gzip.compress(DATA))

    assert [row.key for row in read(remote_shard())] == ["a", "b"]


def test_no_temporary_file_has_a_name_while_rows_are_read(remote, tmp_path):
    with open_shard(remote_shard(), SourceConfig(urls=("memory://bucket",)), MAX_BYTES) as opened:
        assert opened.num_images == 2
        assert list(tmp_path.iterdir()) == []


def test_files_are_closed_when_the_context_ends(remote):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a listing, no paths
    read(remote_shard())

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class Failing:
    """`get_file` that fails some times, then does its work."""

    def __init__(self, fs, errors: list[Exception]) -> None:
        self.get_file, self.errors, self.calls = fs.get_file, errors, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.errors:
            Path(args[1]).write_bytes(b"half")
            raise self.errors.pop(0)
        return self.get_file(*args, **kwargs)


def client_error() -> ClientError:
    return ClientError({"Error": {"Code": "SlowDown", "Message": "Reduce your rate"}}, "GetObject")


@pytest.mark.parametrize(
    "error",
    [OSError("connection reset"), TimeoutError(), EndpointConnectionError(endpoint_url="http://x"), client_error()],
)
def test_a_store_that_fails_twice_is_tried_a_third_time(remote, monkeypatch, error, caplog):
    shard = remote_shard()
    failing = Failing(remote, [error, error])
    monkeypatch.setattr(remote, "get_file", failing)

    assert [row.data for row in read(shard)] == [b"1", b"2"]
    assert failing.calls == 3
    assert [record.getMessage()[:41] for record in caplog.records if record.levelname == "WARNING"] == [
        "shard=memory:///bucket/1.tar try=1 of 3: ",
        "shard=memory:///bucket/1.tar try=2 of 3: ",
    ]


def test_a_store_that_keeps_failing_makes_the_shard_unreadable(remote, monkeypatch, tmp_path):
    shard = remote_shard()
    monkeypatch.setattr(remote, "get_file", Failing(remote, [client_error()] * 3))

    message = r"memory:///bucket/1\.tar: cannot be fetched, 3 tries \(ClientError: .*SlowDown.*\); check the store"
    with pytest.raises(ShardUnreadable, match=message):
        read(shard)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("Access Denied")])
def test_what_a_retry_cannot_mend_is_not_retried(remote, monkeypatch, error):
    shard = remote_shard()
    failing = Failing(remote, [error])
    monkeypatch.setattr(remote, "get_file", failing)

    with pytest.raises(ShardUnreadable, match=rf"1\.tar: cannot be read \({type(error).__name__}: .*\); restore it"):
        read(shard)
    assert failing.calls == 1


def test_an_error_of_our_own_is_not_taken_for_the_stores(remote, monkeypatch):
    shard = remote_shard()
    monkeypatch.setattr(remote, "get_file", Failing(remote, [ZeroDivisionError()]))

    with pytest.raises(ZeroDivisionError):
        read(shard)


def test_a_remote_shard_of_another_size_is_refused(remote):
    shard = remote_shard()
    remote.pipe("/bucket/1.tar", DATA + bytes(512))

    with pytest.raises(
        ShardUnreadable, match=rf"changed since the plan, {len(DATA) + 512} bytes instead of {len(DATA)}"
    ):
        read(shard)


def test_a_local_shard_of_another_size_or_time_is_refused(tmp_path):
    shard = shard_of(tmp_path / "1.tar", DATA)
    os.utime(shard.url, ns=(1, 1))

    with pytest.raises(ShardUnreadable, match=rf"changed since the plan, mtime-1 instead of {shard.etag}; restore it"):
        read(shard)
    with pytest.raises(ShardUnreadable, match=rf"changed since the plan, {len(DATA)} bytes instead of 5; restore it"):
        read(Shard("1.tar", shard.url, 5, "of another store"))


def test_a_missing_local_shard_is_unreadable(tmp_path):
    with pytest.raises(
        ShardUnreadable, match=r"1\.tar: cannot be opened \(FileNotFoundError: .*\); restore it and retry"
    ):
        read(Shard("1.tar", str(tmp_path / "1.tar"), 5, ""))


def test_a_shard_that_shrinks_while_it_is_read_is_unreadable(tmp_path):
    shard = shard_of(tmp_path / "1.tar", DATA)
    source = SourceConfig(urls=(shard.url,))
    with open_shard(shard, source, MAX_BYTES) as opened:
        os.truncate(shard.url, 600)
        with pytest.raises(ShardUnreadable, match=r"b\.jpg: 0 of 1 bytes, cut while it was read; check the disk"):
            list(opened.rows(None))


def test_an_error_of_the_consumer_passes_through(tmp_path):
    shard = shard_of(tmp_path / "1.tar", DATA)

    with pytest.raises(OSError, match="mine"), open_shard(shard, SourceConfig(urls=("x",)), MAX_BYTES):
        raise OSError("mine")


@pytest.mark.parametrize("name", ["1.tar", "1.zip", "1.parquet", "1.tar.gz"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_a_shard_that_is_no_regular_file_is_refused(tmp_path, name, target):
    if target == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(target)

    with pytest.raises(ConfigError, match=rf"{name}: a (named pipe|character device), not a regular file; remove it"):
        list_shards(SourceConfig(urls=(str(tmp_path),)))
    with pytest.raises(ShardUnreadable, match=r"cannot be opened \(OSError: a .*, not a regular file\)"):
        read(Shard(name, str(tmp_path / name), 5, ""))


def test_a_shard_overwritten_in_place_is_reported_at_the_end_of_its_rows(tmp_path):
    shard = shard_of(tmp_path / "1.tar", DATA)
    with open_shard(shard, SourceConfig(urls=(shard.url,)), MAX_BYTES) as opened:
        rows = opened.rows(None)
        next(rows)
        (tmp_path / "1.tar").write_bytes(DATA.replace(b"2", b"3"))
        os.utime(tmp_path / "1.tar", ns=(1, 1))
        assert next(rows).data
        with pytest.raises(ShardUnreadable, match=r"changed since the plan, \d+ bytes, mtime-1 instead of \d+ bytes"):
            next(rows)


def test_a_shard_replaced_by_name_is_read_to_its_end(tmp_path):
    shard = shard_of(tmp_path / "1.tar", DATA)
    with open_shard(shard, SourceConfig(urls=(shard.url,)), MAX_BYTES) as opened:
        (tmp_path / "2.tar").write_bytes(DATA.replace(b"2", b"3"))
        (tmp_path / "2.tar").replace(tmp_path / "1.tar")
        assert [row.data for row in opened.rows(None)] == [b"1", b"2"]
