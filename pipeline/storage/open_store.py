"""Opens the store of an output's URL."""

import os
from importlib import import_module

from pipeline.errors import ConfigError
from pipeline.storage.local import LocalStore
from pipeline.storage.store import Store

ALLOWED = "a local path, file://, s3:// or gs://"


def open_store(url: str) -> Store:
    """Return the store rooted at `url`; sends no request yet, see `probe`.

    Raises:
        ConfigError: the scheme cannot hold an output, or its client is not installed.
    """
    scheme, separator, rest = url.partition("://")
    rest = rest.rstrip("/")
    if not separator:
        return LocalStore(os.path.abspath(os.path.expanduser(url)))  # noqa: PTH100, PTH111 - keeps no `..`, no links
    if scheme in ("s3", "gs"):
        _check_bucket(scheme, rest)
    match scheme:
        case "file":
            return LocalStore(os.path.abspath(f"/{rest.lstrip('/')}"))  # noqa: PTH100 - as above
        case "s3":
            return _load("pipeline.storage.s3", "S3Store", "s3")(f"s3://{rest}")
        case "gs":
            return _load("pipeline.storage.gcs", "GcsStore", "gcs")(f"gs://{rest}")
        case _:
            raise ConfigError(f"output: {scheme}:// cannot hold an output; allowed: {ALLOWED}")


def _check_bucket(scheme: str, rest: str) -> None:
    bucket = rest.partition("/")[0]
    # The URL is not repeated: a secret may stand in it, with a slash that ends what looks like the bucket.
    if "@" in bucket or (":" in bucket and "@" in rest):
        raise ConfigError(f"output: {scheme}:// with '@' before the path; put credentials into the environment")
    if not bucket:
        raise ConfigError(f"output: {scheme}:// without a bucket; give {scheme}://bucket/folder")


def _load(module: str, name: str, extra: str) -> type:
    try:
        return getattr(import_module(module), name)
    except ImportError as err:
        raise ConfigError(
            f"output: {extra} storage needs the package {err.name}, which is not installed; "
            f"run: pip install 'joyfleet[{extra}]'"
        ) from err
