"""One suite for every store: what the ledger relies on."""

import multiprocessing
import pickle
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import StoreError
from pipeline.storage import WriteResult, probe, put_if_absent
from tests.processes import exit_code
from tests.storage.conftest import of_several_processes

ODD_PATHS = [
    "captions/with space/two  spaces.tar.parquet",
    "captions/ünï/日本語 🙂.tar.parquet",
    "captions/a#b?c%20d%2F.tar.parquet",
    "captions/[x]*{y}&=+,;:@!$'()~^`|.tar.parquet",
    "captions/.hidden/.tar.parquet",
    'captions/quote"back\\slash<>.tar.parquet',
]


def entries(store, folder=""):
    return sorted((entry.path, entry.size) for entry in store.list(folder))


def test_a_stored_file_is_read_back_and_an_absent_file_raises(store):
    store.put("report/a.json", b"1")
    store.put("report/a.json", b"22")
    assert store.get("report/a.json") == b"22"
    assert store.exists("report/a.json")
    assert not store.exists("report/b.json")
    assert not store.exists("report")
    for absent in ("report/b.json", "report", "none/at/all", "report/a.json/below"):
        with pytest.raises(FileNotFoundError):
            store.get(absent)


def test_creating_what_exists_is_refused_and_changes_nothing(store):
    store.create("captions/a.parquet", b"first")
    with pytest.raises(FileExistsError):
        store.create("captions/a.parquet", b"second")
    store.put("captions/b.parquet", b"put")
    with pytest.raises(FileExistsError):
        store.create("captions/b.parquet", b"created")
    assert store.get("captions/a.parquet") == b"first"
    assert store.get("captions/b.parquet") == b"put"


def test_empty_files_are_files(store):
    store.create("a", b"")
    with pytest.raises(FileExistsError):
        store.create("a", b"")
    with pytest.raises(FileExistsError):
        store.create("a", b"x")
    store.put("b", b"")
    assert store.get("a") == store.get("b") == b""
    assert entries(store) == [("a", 0), ("b", 0)]


def test_a_listing_has_the_time_of_the_last_write(store):
    store.put("a", b"1")
    [first] = store.list("")
    time.sleep(1.1 if store.url.startswith("s3") else 0.01)  # S3 tells whole seconds
    store.put("a", b"2")
    [second] = store.list("")
    assert abs(first.modified_s - time.time()) < 600
    assert second.modified_s > first.modified_s


def test_a_listing_is_recursive_and_ends_at_its_folder(store):
    for path in ("staging/a/1", "staging/a/b/2", "staging/ab/3", "captions/a/4"):
        store.put(path, b"12345")
    assert entries(store, "staging/a") == [("staging/a/1", 5), ("staging/a/b/2", 5)]
    assert entries(store, "staging/a/1") == []
    assert [path for path, _ in entries(store, "staging")] == ["staging/a/1", "staging/a/b/2", "staging/ab/3"]
    assert len(entries(store)) == 4
    assert entries(store, "quarantine") == []


@pytest.mark.slow
def test_a_listing_follows_all_pages(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.put(f"staging/{i:04d}", b""), range(1001)))
    paths = [path for path, _ in entries(store, "staging")]
    assert paths == [f"staging/{i:04d}" for i in range(1001)]
    store.delete(paths)
    assert entries(store) == []


def test_deleting_twice_is_deleting_once(store):
    store.put("staging/a/1", b"")
    store.put("staging/a/2", b"")
    store.delete(["staging/a/1", "staging/a/none", "staging/none/at/all"])
    store.delete(["staging/a/1"])
    store.delete([])
    assert entries(store) == [("staging/a/2", 0)]
    store.delete(["staging/a/2"])
    store.put("staging/a/2", b"again")
    assert entries(store) == [("staging/a/2", 5)]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_names_survive(store, path):
    store.create(path, path.encode())
    with pytest.raises(FileExistsError):
        store.create(path, b"")
    assert store.exists(path)
    assert entries(store, "captions") == [(path, len(path.encode()))]
    assert store.get(path) == path.encode()
    store.delete([path])
    assert entries(store) == []


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\0b", "a\udc80", "a?versionId=1/b"]
)
def test_a_path_that_could_mean_two_things_is_refused(store, path):
    for act in (store.get, store.exists, lambda path: store.put(path, b""), lambda path: store.delete([path])):
        with pytest.raises(StoreError, match="Rename the shard"):
            act(path)
    with pytest.raises(StoreError, match="Rename the shard"):
        store.create(path, b"")
    assert entries(store) == []


def test_the_probe_passes_and_leaves_nothing(store):
    probe(store)
    assert entries(store) == []


def test_put_if_absent_returns_who_created_the_file(store):
    attempt, other = uuid.uuid4().hex, uuid.uuid4().hex
    assert put_if_absent(store, "a", attempt.encode(), attempt) is WriteResult.CREATED
    assert put_if_absent(store, "a", attempt.encode(), attempt) is WriteResult.OURS
    assert put_if_absent(store, "a", other.encode(), other) is WriteResult.EXISTS
    assert store.get("a") == attempt.encode()


def test_a_pickled_store_is_the_same_store(store):
    store.put("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.get("a") == b"1"
    assert again.url == store.url


def race(store, name):
    attempt = uuid.uuid4().hex
    return put_if_absent(store, name, attempt.encode() * 1000, attempt)


def test_of_16_threads_exactly_one_creates(store):
    with ThreadPoolExecutor(16) as pool:
        for num_round in range(10):
            outcomes = list(pool.map(lambda _, name=f"captions/{num_round}": race(store, name), range(16)))
            assert sorted(outcomes) == [WriteResult.CREATED] + [WriteResult.EXISTS] * 15
    assert len(entries(store, "captions")) == 10


def race_in_fork(store, barrier, rounds, results):
    outcomes = []
    for num_round in range(rounds):
        barrier.wait(60)
        outcomes.append(race(store, f"captions/deep/{num_round}"))
    results.put(outcomes)


def race_of_forks(store, num, rounds):
    """Open the store, then fork: the children must not use the client that they inherit."""
    store.exists("opened before the fork")
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(num), context.Queue()
    processes = [context.Process(target=race_in_fork, args=(store, barrier, rounds, results)) for _ in range(num)]
    for process in processes:
        process.start()
    rounds_of_each = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for outcomes in zip(*rounds_of_each, strict=True):
        assert sorted(outcomes) == [WriteResult.CREATED] + [WriteResult.EXISTS] * (num - 1)


@of_several_processes
def test_of_8_forked_processes_exactly_one_creates(store):
    assert exit_code(race_of_forks, store, 8, 8) == 0
    assert len(entries(store, "captions")) == 8


def create_in_spawned(store):
    store.create("captions/a", b"1")


@pytest.mark.slow
@of_several_processes
def test_a_store_travels_to_a_spawned_process(store):
    store.exists("opened before the spawn")
    process = multiprocessing.get_context("spawn").Process(target=create_in_spawned, args=(store,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert store.get("captions/a") == b"1"
