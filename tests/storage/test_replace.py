"""Replacing a file that is still what was read: of several at once one succeeds, and a reader sees old or new."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import StoreError
from pipeline.storage import WriteResult, publish, put_if_absent, replace_if
from tests.ledger.faults import Interposed
from tests.processes import exit_code
from tests.storage.conftest import of_several_processes

PATH = "captions/a b.parquet"


def attempt_and_data():
    attempt = uuid.uuid4().hex
    return attempt, attempt.encode() * 3000


def first(store):
    attempt, data = attempt_and_data()
    assert put_if_absent(store, PATH, data, attempt) is WriteResult.CREATED
    return data


def replace(store, version):
    attempt, data = attempt_and_data()
    return replace_if(store, PATH, data, version, attempt), data


def test_what_was_read_is_replaced_once(store):
    old = first(store)
    data, version = store.get_versioned(PATH)
    assert data == old
    outcome, new = replace(store, version)
    assert outcome is WriteResult.REPLACED
    assert store.get_versioned(PATH)[0] == new
    assert replace(store, version)[0] is WriteResult.EXISTS
    assert store.get(PATH) == new
    assert [entry.path for entry in store.list("")] == [PATH]


def test_a_file_that_is_gone_is_not_made_anew(store):
    first(store)
    _, version = store.get_versioned(PATH)
    store.delete([PATH])
    with pytest.raises(StoreError, match=r"captions/a b\.parquet"):
        replace(store, version)
    assert not store.exists(PATH)
    with pytest.raises(FileNotFoundError):
        store.get_versioned(PATH)


@pytest.mark.parametrize("err", [TimeoutError, ConnectionError, FileExistsError])
def test_a_lost_answer_is_known_as_our_own(store, monkeypatch, err):
    monkeypatch.setattr(publish, "BACKOFF_S", 0.0)
    first(store)
    _, version = store.get_versioned(PATH)
    left = [1]

    def lose(_, name):
        if name == "replace" and left.pop():
            left.append(0)
            raise err

    outcome, new = replace(Interposed(store, after=lose), version)
    assert outcome is WriteResult.OURS
    assert store.get(PATH) == new


def test_of_16_threads_exactly_one_replaces(store):
    first(store)
    for _ in range(8):
        _, version = store.get_versioned(PATH)
        with ThreadPoolExecutor(16) as pool:
            done = list(pool.map(lambda _, version=version: replace(store, version), range(16)))
        winners = [data for outcome, data in done if outcome is WriteResult.REPLACED]
        assert len(winners) == 1
        assert store.get(PATH) == winners[0]
        assert sorted(outcome for outcome, _ in done) == [WriteResult.EXISTS] * 15 + [WriteResult.REPLACED]


def count_up(store, times):
    """Add a line to the file `times` times, each time on top of what stands there."""
    done = 0
    while done < times:
        data, version = store.get_versioned(PATH)
        attempt = uuid.uuid4().hex
        done += replace_if(store, PATH, data + f"{attempt}\n".encode(), version, attempt) is not WriteResult.EXISTS


def race_of_forks(store, num, times):
    import multiprocessing

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count_up, args=(store, times)) for _ in range(num)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0


@of_several_processes
def test_no_replacement_of_several_processes_is_lost(store):
    store.put(PATH, b"")
    assert exit_code(race_of_forks, store, 4, 10) == 0
    assert len(set(store.get(PATH).splitlines())) == 40


def test_a_reader_sees_the_old_file_or_the_new_one(store):
    first(store)
    seen, stop = [], threading.Event()

    def read():
        while True:
            data = store.get(PATH)
            seen.append(data == data[:32] * 3000)
            if stop.is_set():
                return

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for _ in range(20):
            assert replace(store, store.get_versioned(PATH)[1])[0] is WriteResult.REPLACED
        stop.set()
        for reader in readers:
            reader.result()
    assert seen
    assert all(seen)
