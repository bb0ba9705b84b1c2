"""A shard is brought whole to the local disk before its first row is read, and leaves no file behind.

Whole, because what a reader then sees cannot change or break off in the middle, because nearly all
bytes of an image shard are wanted, and because one GET per shard replaces one per column chunk. An
image that is asked for is never waited for on the network. What a resume reads too much is bounded
by the shards that were in flight.

Files are read, not mapped: a mapped file that is cut by someone else kills the process with SIGBUS.
"""

import errno
import logging
import os
import random
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import ShardUnreadable, StoreError
from schemas.shard import Shard

T = TypeVar("T")

log = logging.getLogger(__name__)

TRIES = 3
"""The stores' clients retry too (s3fs five times, seconds each); this outlasts a restart of the server."""
RETRY_S = 2.0
"""Seconds before the second try, doubled for the third, each times 0.5 to 1.5."""

# Errors of the stores' clients that are not OSError. Looked up where they are loaded, so that no store's
# library is imported for it.
CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)

TRANSIENT_ERRORS = (
    ("botocore.exceptions", "ConnectionError"),
    ("botocore.exceptions", "HTTPClientError"),
    ("botocore.exceptions", "FlexibleChecksumError"),
    ("botocore.parsers", "ResponseParserError"),
    ("aiohttp", "ClientError"),
)
"""Errors without an answer of the store, or with one that came to harm on its way."""
TRANSIENT_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
"""Beside all from 500 on."""
TRANSIENT_ERRNOS = {
    *(errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.ESTALE),
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, getattr(errno, "EREMOTEIO", errno.EIO)),
}
"""Of a network file system; s3fs makes EBUSY of a 503 and EREMOTEIO of a 500."""


def store_errors() -> tuple[type[Exception], ...]:
    """What a file system of fsspec raises when its store fails. FSTimeoutError is a TimeoutError, an OSError."""
    return (OSError, *_loaded(CLIENT_ERRORS))


def _loaded(names: Iterable[tuple[str, str]]) -> Iterator[type[Exception]]:
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return (error for error in found if error is not None)


def is_transient(err: Exception) -> bool:
    """Whether a store may answer otherwise in a moment: what it lists here, and nothing else, is worth another try."""
    if isinstance(err, FileNotFoundError | PermissionError):
        return False
    status = _status(err)
    if status is not None:
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in TRANSIENT_STATUSES
    if isinstance(err, TimeoutError | ConnectionError):
        return True
    if isinstance(err, tuple(_loaded(TRANSIENT_ERRORS))):
        return True
    return isinstance(err, OSError) and err.errno in TRANSIENT_ERRNOS


def _status(err: Exception) -> int | None:
    """The HTTP status of a store's answer, where there was one: s3fs keeps botocore's error as the cause."""
    response: Mapping[str, Any] = getattr(err.__cause__, "response", None) or {}
    found = response.get("ResponseMetadata", {}).get("HTTPStatusCode", getattr(err, "status", None))
    found = getattr(err, "code", None) if found is None else found
    return found if isinstance(found, int) and found >= HTTPStatus.BAD_REQUEST else None


def is_local(fs: object) -> bool:
    """Whether a file of this file system can be opened where it lies."""
    return isinstance(fs, LocalFileSystem)


def open_local(shard: Shard) -> BinaryIO:
    """The shard's bytes as a local file; a copy vanishes with the file object, even if the process is killed.

    Raises:
        ShardUnreadable: the shard is missing, cannot be fetched, or is not what was planned.
    """
    fs, path = url_to_fs(shard.url)
    file = _open_in_place(shard, path) if is_local(fs) else _fetch(fs, path, shard)
    size = file.seek(0, 2)
    file.seek(0)
    if size != shard.size:
        file.close()
        raise changed(shard, f"{size} bytes instead of {shard.size}")
    return file


def changed(shard: Shard, how: str) -> ShardUnreadable:
    """The error of a shard that is not what was planned."""
    return ShardUnreadable(f"{shard.url}: changed since the plan, {how}; restore it, or plan it into a new output")


def check_unchanged(file: BinaryIO, shard: Shard) -> None:
    """Compare a local file that lies where it was listed with what was listed; a copy of a store's cannot change.

    A file that another has replaced by name is still what it was to those who have it open.

    Raises:
        ShardUnreadable: it was written to since.
    """
    seen = os.fstat(file.fileno())
    modified = f"mtime-{seen.st_mtime_ns}"
    if shard.etag.startswith("mtime-") and (seen.st_size, modified) != (shard.size, shard.etag):
        raise changed(shard, f"{seen.st_size} bytes, {modified} instead of {shard.size} bytes, {shard.etag}")


KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISDIR, "a folder"),
)


def not_regular(mode: int) -> str | None:
    """What a file is that is not a regular one: such a file may have no end, or wait for ever for a writer."""
    return next((kind for is_kind, kind in KINDS if is_kind(mode)), None)


def open_regular(path: str) -> BinaryIO:
    """Open a local file that is a regular one, without waiting for what is not.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK a named pipe is waited for until somebody writes into it.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - as above
    kind = not_regular(os.fstat(file.fileno()).st_mode)
    if kind:
        file.close()
        raise OSError(f"{kind}, not a regular file")
    return file


def _open_in_place(shard: Shard, path: str) -> BinaryIO:
    try:
        file = open_regular(path)
    except OSError as err:
        raise ShardUnreadable(
            f"{shard.url}: cannot be opened ({type(err).__name__}: {err}); restore it and retry"
        ) from err
    modified = f"mtime-{os.fstat(file.fileno()).st_mtime_ns}"
    if shard.etag.startswith("mtime-") and modified != shard.etag:
        file.close()
        raise changed(shard, f"{modified} instead of {shard.etag}")
    return file


def _fetch(fs: Any, path: str, shard: Shard) -> BinaryIO:  # noqa: ANN401 - fsspec has no types
    def fetch() -> tuple[BinaryIO, str | None]:
        with tempfile.TemporaryDirectory(prefix="joyfleet-") as folder:
            copy = Path(folder) / "shard"
            fs.get_file(path, str(copy))
            # Asked afterwards: what was fetched before it is of the plan, or the etag is another one by now.
            fs.invalidate_cache(path)
            etag = store_etag(fs.info(path))
            return copy.open("rb"), etag

    file, etag = with_tries(shard, fetch)
    if etag is not None and etag != shard.etag:
        file.close()
        raise changed(shard, f"etag {etag} instead of {shard.etag}")
    return file


def store_etag(info: Mapping[str, Any]) -> str | None:
    """The etag that S3 and GCS give to an object, in a listing as by its name; None where there is none."""
    found = info.get("ETag") or info.get("etag")
    return str(found).strip('"') if found else None


def list_with_tries(what: str, ask: Callable[[], T]) -> T:
    """What `ask` returns, which lists a store and is asked again after a transient error; others are its own.

    Raises:
        StoreError: each of `TRIES` ended in a transient error.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return ask()
        except store_errors() as err:
            if not is_transient(err):
                raise
            if attempt == TRIES:
                raise StoreError(
                    f"{what}: cannot be listed, {TRIES} tries ({type(err).__name__}: {err}); run again when the store "
                    "answers, or check its address"
                ) from err
            log.warning("%s: try=%d of %d: %s: %s", what, attempt, TRIES, type(err).__name__, err)
            time.sleep(RETRY_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("every turn returns or raises")


def with_tries(shard: Shard, fetch: Callable[[], T]) -> T:
    """What `fetch` returns, which asks a store and may be asked again.

    Raises:
        ShardUnreadable: what it asks for is missing, or cannot be had in `TRIES`.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return fetch()
        except (FileNotFoundError, PermissionError) as err:
            raise ShardUnreadable(
                f"{shard.url}: cannot be read ({type(err).__name__}: {err}); restore it or its permissions and retry"
            ) from err
        except store_errors() as err:
            if attempt == TRIES:
                raise ShardUnreadable(
                    f"{shard.url}: cannot be fetched, {TRIES} tries ({type(err).__name__}: {err}); "
                    f"check the store and the space in {tempfile.gettempdir()}, then retry"
                ) from err
            log.warning("shard=%s try=%d of %d: %s: %s", shard.url, attempt, TRIES, type(err).__name__, err)
            time.sleep(RETRY_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("every turn returns or raises")
