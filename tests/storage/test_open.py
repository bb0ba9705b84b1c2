import pickle
import sys

import pytest

from pipeline.errors import ConfigError, StoreError
from pipeline.storage import open_store


@pytest.mark.parametrize("scheme", ["http", "https", "hf", "az", "gcs", "s3a", "memory"])
def test_a_scheme_that_cannot_hold_an_output_is_refused_with_those_that_can(scheme):
    with pytest.raises(ConfigError, match=rf"^output: {scheme}:// cannot .* a local path, file://, s3:// or gs://$"):
        open_store(f"{scheme}://bucket/out")


@pytest.mark.parametrize("url", ["s3://", "gs:///out"])
def test_a_url_without_a_bucket_is_refused(url):
    with pytest.raises(ConfigError, match="without a bucket; give"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3://key:marker@bucket/out", "s3://key:mar/marker@bucket/out"])
def test_credentials_in_the_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="put credentials into the environment") as caught:
        open_store(url)
    assert "marker" not in str(caught.value)


@pytest.mark.parametrize(("url", "package", "extra"), [("s3://b/o", "s3fs", "s3"), ("gs://b/o", "gcsfs", "gcs")])
def test_a_missing_client_names_the_extra_to_install(monkeypatch, url, package, extra):
    module = f"pipeline.storage.{extra}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}.* not installed; run: pip install 'joyfleet\[{extra}\]'"):
        open_store(url)


def test_no_credentials_is_a_clear_error(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1/none")
    store = open_store("s3://bucket/out")
    for act in (lambda: store.create("a", b""), lambda: store.get("a"), lambda: list(store.list("a"))):
        with pytest.raises(StoreError, match=r"NoCredentialsError.* the credentials in the environment"):
            act()


def test_the_errors_pickle():
    for err in (StoreError("a"), ConfigError("b")):
        again = pickle.loads(pickle.dumps(err))
        assert (type(again), str(again)) == (type(err), str(err))
