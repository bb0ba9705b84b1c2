import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.storage import local, open_store
from tests.processes import was_killed


def visible(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file() and local.TEMPORARY not in path.parts]


def write_and_die(url, fatal, method):
    """Die in `os.<fatal>`, the step of the writer that calls it."""
    setattr(os, fatal, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    getattr(open_store(url), method)("captions/a.parquet", b"whole")


@pytest.mark.parametrize(
    ("fatal", "method"), [("link", "create"), ("replace", "put"), ("fsync", "create"), ("fsync", "put")]
)
def test_a_killed_writer_leaves_no_file(tmp_path, fatal, method):
    store = open_store(f"{tmp_path}/out")
    store.put("captions/before", b"makes the folders")
    assert was_killed(write_and_die, store.url, fatal, method)
    assert visible(tmp_path) == [tmp_path / "out/captions/before"]
    assert [entry.size for entry in store.list(local.TEMPORARY)] == [5]
    assert not list(tmp_path.glob("**/*.parquet"))
    store.create("captions/a.parquet", b"next")
    assert store.get("captions/a.parquet") == b"next"


def test_the_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    store = open_store(f"{tmp_path}/out")
    store.create("captions/first", b"makes the folders")
    done = []
    fsync, link = os.fsync, os.link

    def sync(handle):
        done.append("sync file" if stat.S_ISREG(os.fstat(handle).st_mode) else "sync folder")
        fsync(handle)

    def name(source, target, **options):
        done.append("link")
        link(source, target, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", name)
    store.create("captions/a", b"x")
    assert [act for act in done if act != "sync folder"] == ["sync file", "link"]
    assert done[-2:] == ["link", "sync folder"]


def test_a_disk_without_hard_links_is_refused(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(f"{tmp_path}/out")
    with pytest.raises(StoreError, match=r"captions/a: cannot be written \(Operation not permitted\).* hard links"):
        store.create("captions/a", b"")
    assert list(store.list("")) == []


def test_a_file_in_the_way_of_a_folder_is_an_error_not_an_existing_file(tmp_path):
    store = open_store(f"{tmp_path}/out")
    store.put("a", b"")
    for write in (store.put, store.create):
        with pytest.raises(StoreError, match=r"a/b: cannot be written \(Not a directory\)"):
            write("a/b", b"")


def test_a_swept_temporary_file_is_written_again(tmp_path, monkeypatch):
    store = open_store(f"{tmp_path}/out")
    link = os.link
    swept = []

    def sweep_once(source, target, **options):
        if not swept:
            swept.append(source)
            Path(source).unlink()
        link(source, target, **options)

    monkeypatch.setattr(os, "link", sweep_once)
    store.create("captions/a", b"x")
    assert store.get("captions/a") == b"x"
    assert len(swept) == 1


def test_deleting_the_last_file_removes_its_folders(tmp_path):
    store = open_store(f"{tmp_path}/out")
    store.put("staging/a/b/1", b"")
    store.put("staging/c", b"")
    store.delete(["staging/a/b/1"])
    assert not (tmp_path / "out/staging/a").exists()
    assert store.exists("staging/c")


def test_paths_are_absolute_when_the_store_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("out").url == open_store("./x/../out/").url == f"{tmp_path}/out"
    assert open_store(f"file://{tmp_path}/out").url == f"{tmp_path}/out"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/out").url == f"{tmp_path}/out"


def test_the_local_store_needs_no_cloud_client():
    code = "import sys; import pipeline.storage; sys.exit(any(m in sys.modules for m in ('s3fs', 'gcsfs', 'botocore')))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("link", ["a", "a/b"])
def test_nothing_is_deleted_through_a_link_to_a_folder(tmp_path, link):
    store = open_store(f"{tmp_path}/out")
    store.put("a/b/c" if link == "a" else "b/c", b"")
    store.put("kept", b"")
    behind = tmp_path / "behind"
    (tmp_path / "out" / ("a" if link == "a" else "b")).rename(behind)
    (tmp_path / "out" / link).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / link).symlink_to(behind)
    assert [entry.linked for entry in store.list("a")] == ([True] if link == "a" else [])
    with pytest.raises(StoreError, match=r"a/b/c: its folder \w is a link, and nothing is removed through a link"):
        store.delete(["a/b/c"])
    assert len([path for path in behind.rglob("*") if path.is_file()]) == 1


def test_an_output_that_is_itself_a_link_is_one_like_any_other(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    store = open_store(f"{tmp_path}/out")
    store.put("a/b", b"")
    assert [entry.linked for entry in store.list("a")] == [False]
    store.delete(["a/b", "a/absent", "absent/b", "a/b/c"])
    assert list((tmp_path / "disk").rglob("*")) in ([], [tmp_path / "disk" / ".tmp"])
