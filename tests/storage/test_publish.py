import uuid

import pytest

from pipeline.errors import StoreError
from pipeline.storage import WriteResult, open_store, probe, publish, put_if_absent
from tests.memory_store import MemoryStore
from tests.storage.scripted_s3 import scripted_s3

ATTEMPT = uuid.uuid4().hex
DATA = b"PAR1 " + ATTEMPT.encode()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(publish, "BACKOFF_S", 0.0)


@pytest.fixture
def memory():
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


class Faulty:
    """A store whose creations fail as set: `before` them or `after` them."""

    def __init__(self, store, faults):
        self.store, self.faults, self.num_deletes = store, list(faults), 0
        self.url, self.get = store.url, store.get

    def create(self, path, data):
        when, err = self.faults.pop(0) if self.faults else ("", None)
        if when == "before":
            raise err
        self.store.create(path, data)
        if when == "after":
            raise err

    def delete(self, paths):
        self.num_deletes += 1
        self.store.delete(paths)


@pytest.mark.parametrize(
    "err", [TimeoutError("read"), ConnectionResetError("reset"), OSError(5, "EIO"), FileExistsError()]
)
def test_a_lost_answer_is_recognised_as_ours(memory, err):
    assert put_if_absent(Faulty(memory, [("after", err)]), "a", DATA, ATTEMPT) is WriteResult.OURS
    assert memory.get("a") == DATA


def test_a_fault_before_the_write_is_tried_again(memory):
    faults = [("before", TimeoutError()), ("before", ConnectionError())]
    assert put_if_absent(Faulty(memory, faults), "a", DATA, ATTEMPT) is WriteResult.CREATED


def test_a_file_that_exists_and_then_does_not_is_tried_again(memory):
    faults = [("before", FileExistsError()), ("before", FileExistsError())]
    assert put_if_absent(Faulty(memory, faults), "a", DATA, ATTEMPT) is WriteResult.CREATED


def test_a_lost_answer_to_a_race_that_another_won_is_theirs(memory):
    memory.create("a", b"theirs")
    assert put_if_absent(Faulty(memory, [("before", TimeoutError())]), "a", DATA, ATTEMPT) is WriteResult.EXISTS
    assert memory.get("a") == b"theirs"


def test_what_stays_unclear_is_an_error_and_nothing_is_deleted(memory):
    store = Faulty(memory, [("after", TimeoutError("slow"))] + [("before", TimeoutError("slow"))] * 9)
    with pytest.raises(StoreError, match=r"/a: no clear answer to 6 .*TimeoutError\('slow'\).* nothing was removed"):
        put_if_absent(store, "a", DATA, ATTEMPT)
    assert store.num_deletes == 0
    assert memory.get("a") == DATA


def test_data_without_its_attempt_is_refused(memory):
    with pytest.raises(ValueError, match="is not in the data"):
        put_if_absent(memory, "a", b"anonymous", ATTEMPT)


def test_100_mb_are_refused_before_anything_is_sent(memory):
    store = Faulty(memory, [("before", AssertionError("sent"))])
    with pytest.raises(StoreError, match=r"/a: 100000000 bytes; .* below 100000000, .* shards smaller"):
        put_if_absent(store, "a", DATA + bytes(100_000_000 - len(DATA)), ATTEMPT)


class Overwriting(Faulty):
    def create(self, path, data):
        self.store.put(path, data)


def test_the_probe_refuses_a_store_that_overwrites(memory):
    with pytest.raises(StoreError, match=r"^memory://.*: does not honour create-if-absent: .* created and created"):
        probe(Overwriting(memory, []))
    assert list(memory.list("")) == []


class Swallowing(Faulty):
    def create(self, path, data):
        if not self.store.exists(path):
            self.store.create(path, data)


def test_the_probe_refuses_a_store_that_says_created_and_keeps_the_first(memory):
    with pytest.raises(StoreError, match="created and created, and the first content is stored"):
        probe(Swallowing(memory, []))


def test_the_probe_finds_a_server_that_ignores_the_condition(monkeypatch):
    with scripted_s3(monkeypatch) as server:
        server.faults = ["ignore condition"] * 2
        with pytest.raises(StoreError, match=r"^s3://bucket/out: does not honour .* MinIO"):
            probe(open_store("s3://bucket/out"))


@pytest.mark.parametrize("fault", ["hang up", "500 afterwards", "conflict", "unavailable"])
def test_unclear_answers_of_s3_end_in_one_certain_result(monkeypatch, fault):
    with scripted_s3(monkeypatch) as server:
        server.faults = [fault]
        outcome = put_if_absent(open_store("s3://bucket/out"), "a", DATA, ATTEMPT)
        assert outcome is (WriteResult.CREATED if fault in ("conflict", "unavailable") else WriteResult.OURS)
        assert list(server.objects.values()) == [DATA]
        assert all(exclusive for method, exclusive in server.requests if method == "PUT")


def test_a_412_that_names_no_condition_means_exists(monkeypatch):
    with scripted_s3(monkeypatch) as server:
        store = open_store("s3://bucket/out")
        store.put("a", b"theirs")
        assert put_if_absent(store, "a", DATA, ATTEMPT) is WriteResult.EXISTS
        assert list(server.objects.values()) == [b"theirs"]


def test_a_refusal_is_not_tried_again_and_shows_no_secret(monkeypatch):
    with scripted_s3(monkeypatch, secret="marker-d41d8cd98f") as server:
        server.faults = ["refuse", "signature"]
        for code in ("no", "check your secret"):
            with pytest.raises(StoreError, match=rf"^s3://bucket/out/a: S3 failed .*{code}.* credentials") as caught:
                put_if_absent(open_store("s3://bucket/out"), "a", DATA, ATTEMPT)
            assert "marker" not in str(caught.value) + repr(caught.value.__cause__)
        assert len(server.requests) == 2


def test_a_creation_above_the_part_size_is_still_one_conditional_request(monkeypatch):
    # 104,857,600 bytes is where s3fs would start a multipart upload.
    with scripted_s3(monkeypatch) as server:
        open_store("s3://bucket/out").create("a", bytes(105_000_000))
        assert server.requests == [("PUT", True)]
