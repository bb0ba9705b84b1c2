"""A real S3 server behind a proxy that spoils bodies and refuses single keys: what is asked again, and what is not."""

import logging
import uuid

import pytest

from pipeline.errors import StoreError
from pipeline.ledger.commit import remove_staging
from pipeline.ledger.layout import fragment_path
from pipeline.storage import open_store, probe, s3
from tests.ledger.world import NUM_IMAGES, SHARD, commit, committed, paths, stage
from tests.s3_proxy import Fault, s3_proxy


@pytest.fixture
def proxied(s3_environment, monkeypatch):
    """Return a function that opens a store behind a proxy; the store itself, and the proxy's script."""
    monkeypatch.setattr(s3, "BACKOFF_S", 0.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield open_store(f"s3://out/{uuid.uuid4().hex}"), script


def suffer(script, kind, at_most=None):
    script.kinds, script.share, script.at_most = (kind,), 1.0, at_most


@pytest.mark.parametrize("read", ["get", "get_versioned"])
@pytest.mark.parametrize("kind", [Fault.WRONG_CHECKSUM, Fault.ERROR_500])
def test_a_body_with_a_wrong_checksum_and_an_internal_error_are_retried(proxied, read, kind):
    store, script = proxied
    store.put("a", b"data")
    suffer(script, kind, at_most=2)
    result = getattr(store, read)("a")
    assert (result if read == "get" else result[0]) == b"data"
    assert script.counts[kind] == 2


def test_a_body_that_never_matches_its_checksum_is_reported(proxied):
    store, script = proxied
    store.put("a", b"data")
    suffer(script, Fault.WRONG_CHECKSUM)
    with pytest.raises(StoreError, match=r"/a: S3 failed \(FlexibleChecksumError"):
        store.get("a")
    assert script.counts[Fault.WRONG_CHECKSUM] == s3.TRIES


def test_listings_heads_and_puts_are_retried(proxied):
    store, script = proxied
    suffer(script, Fault.ERROR_500, at_most=2)
    store.put("a", b"data")
    script.counts.clear()
    assert [entry.path for entry in store.list("")] == ["a"]
    script.counts.clear()
    assert store.exists("a")
    assert script.counts[Fault.ERROR_500] == 2


def test_a_final_refusal_is_not_retried(proxied):
    store, script = proxied
    script.refuses = True
    with pytest.raises(StoreError, match="PermissionError"):
        store.get("a")
    assert len(script.asked) == 1


def test_single_keys_that_are_refused_are_deleted_again(proxied):
    store, script = proxied
    for name in "abc":
        store.put(name, b"")
    suffer(script, Fault.KEYS_REFUSED, at_most=2)
    store.delete(["a", "b"])
    assert paths(store) == ["c"]
    assert script.counts[Fault.KEYS_REFUSED] == 2


def test_keys_that_stay_are_named(proxied):
    store, script = proxied
    for name in "abcd":
        store.put(name, b"")
    suffer(script, Fault.KEYS_REFUSED)
    with pytest.raises(
        StoreError, match=r"4 of 4 files are not deleted: s3://out/\w+/a \(InternalError\).* and 1 more"
    ):
        store.delete(list("abcd"))


def test_staging_that_cannot_be_removed_ends_neither_a_commit_nor_the_probe(proxied, caplog):
    store, script = proxied
    staged = stage(store, range(NUM_IMAGES))
    suffer(script, Fault.KEYS_REFUSED)
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        probe(store)
        assert commit(store, [staged]).won
        assert commit(store, [staged]).num_images == NUM_IMAGES  # as the next run finds it
    assert committed(store)
    assert staged in paths(store)
    assert f"shard={SHARD.path} is committed; its staging stays until `joyfleet clean`" in caplog.text
    assert f"{staged} (InternalError)" in caplog.text
    assert "staging/.probe-" in caplog.text


def test_staging_that_cannot_be_listed_ends_no_commit(proxied, caplog):
    store, script = proxied
    store.put(fragment_path(SHARD.path, 0, "0" * 32), b"")
    script.refuses = True
    with caplog.at_level(logging.WARNING, logger="pipeline"):
        remove_staging(store, SHARD.path)
    assert "its staging stays until `joyfleet clean`" in caplog.text
