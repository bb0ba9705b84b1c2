"""A source whose store fails while it is listed, on a real S3 server: no fault of the config."""

import pytest

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.readers import list_shards, transport
from pipeline.storage import open_store
from tests.readers.shards import tar_of
from tests.s3_proxy import Fault, s3_proxy

SOURCE = SourceConfig(urls=("s3://out/listing",))


@pytest.fixture
def script(s3_environment, monkeypatch):
    open_store("s3://out/listing").put("1.tar", tar_of([("a.jpg", b"1")]))
    monkeypatch.setattr(transport, "RETRY_S", 0.0)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_proxy(s3_environment["AWS_ENDPOINT_URL"]) as (endpoint, script):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield script


@pytest.mark.parametrize("kind", [Fault.ERROR_500, Fault.SLOW_DOWN, Fault.RESET, Fault.TRUNCATED])
def test_a_listing_that_fails_once_or_twice_is_retried(script, kind):
    script.kinds, script.share, script.at_most = (kind,), 1.0, 2
    assert [shard.path for shard in list_shards(SOURCE)] == ["1.tar"]
    assert script.counts[kind] == 2


@pytest.mark.parametrize("kind", [Fault.ERROR_500, Fault.RESET])
def test_a_store_that_fails_for_good_is_no_fault_of_the_config(script, kind):
    script.kinds, script.share = (kind,), 1.0
    with pytest.raises(
        StoreError, match=r"source s3://out/listing: cannot be listed, 3 tries \(.*; run again when the"
    ):
        list_shards(SOURCE)


def test_a_refused_key_is_a_config_error_after_one_request(script):
    script.refuses = True
    with pytest.raises(ConfigError, match=r"cannot be listed .*; check the address and the credentials"):
        list_shards(SOURCE)
    assert len(script.asked) <= 2
