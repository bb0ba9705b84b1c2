"""Fetches a shard whole to the local disk before its first row is read; no file is left behind.

Whole, because the data then cannot change or end in the middle, because nearly all bytes of an image
shard are needed, and because one GET per shard replaces one per column chunk. Reading an image never
waits for the network. What a resume fetches again is bounded by the shards that were in flight.

Files are read, not mapped: truncating a mapped file kills the process with SIGBUS.
"""

import errno
import logging
import os
import random
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import PipelineError, ShardUnreadable, StoreError
from schemas.shard import Shard

T = TypeVar("T")

log = logging.getLogger(__name__)

TRIES = 3
"""The stores' clients retry too (s3fs five times, seconds each); together they survive a restart of the server."""
RETRY_S = 2.0
"""Seconds before the second try, doubled for the third, each times 0.5 to 1.5."""

# Errors of the stores' clients that are not OSError. They are looked up only in modules that are loaded already, so
# that no library of a store is imported for it.
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
"""Errors without an answer from the store, or with a damaged one."""
TRANSIENT_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
"""In addition to all from 500 on."""
TRANSIENT_ERRNOS = {
    *(errno.EAGAIN, errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.ESTALE),
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, getattr(errno, "EREMOTEIO", errno.EIO)),
}
"""Of a network file system; s3fs turns a 503 into EBUSY and a 500 into EREMOTEIO."""


def store_errors() -> tuple[type[Exception], ...]:
    """The errors that fsspec raises when a store fails. FSTimeoutError is a TimeoutError, so an OSError."""
    return (OSError, *_loaded(CLIENT_ERRORS))


def _loaded(names: Iterable[tuple[str, str]]) -> Iterator[type[Exception]]:
    errors = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return (error for error in errors if error is not None)


def is_transient(err: Exception) -> bool:
    """Whether another try may succeed: true for the errors listed here and no others."""
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
    """The HTTP status of the store's answer, if there was one: s3fs keeps botocore's error as the cause."""
    response: Mapping[str, Any] = getattr(err.__cause__, "response", None) or {}
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", getattr(err, "status", None))
    status = getattr(err, "code", None) if status is None else status
    return status if isinstance(status, int) and status >= HTTPStatus.BAD_REQUEST else None


def is_local(fs: object) -> bool:
    """Whether files of this file system are opened in place."""
    return isinstance(fs, LocalFileSystem)


def is_s3(fs: object) -> bool:
    """Whether this is the file system of s3fs, of a class of its own included."""
    protocol: str | tuple[str, ...] = getattr(fs, "protocol", ())
    return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)


def open_local(shard: Shard) -> BinaryIO:
    """Return the shard as a local file; a copy disappears with the file object, even if the process is killed.

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


@contextmanager
def local_file(shard: Shard) -> Generator[BinaryIO]:
    """Yield a shard as a local file: the file itself, or a copy that is removed with the context.

    Raises:
        ShardUnreadable: as `open_local`, or the shard is empty.
    """
    with closing(open_local(shard)) as file:
        if not shard.size:
            raise ShardUnreadable(f"{shard.url}: 0 bytes; restore the shard and retry")
        yield file


@contextmanager
def ranged_file(shard: Shard, window_bytes: int, *, ahead: bool = True) -> Generator[BinaryIO]:
    """Yield a shard as a file that reads ranges of its store, at least `window_bytes` at a time if it reads ahead.

    Raises:
        ShardUnreadable: the shard has another size than when it was listed.
    """
    fs, path = url_to_fs(shard.url)
    cache = "readahead" if ahead else "none"
    with closing(cast("BinaryIO", fs.open(path, "rb", block_size=window_bytes, cache_type=cache))) as file:
        size = file.seek(0, 2)
        if size != shard.size:
            raise changed(shard, f"{size} bytes instead of {shard.size}")
        file.seek(0)
        yield file


@contextmanager
def part_file(shard: Shard, window_bytes: int, *, ahead: bool = True) -> Generator[BinaryIO]:
    """Yield a shard of which a part is read: a local file in place, else as `ranged_file`.

    Raises:
        ShardUnreadable: the shard is not what was planned.
    """
    fs, path = url_to_fs(shard.url)
    if is_local(fs):
        with closing(open_local(shard)) as file:
            yield file
        return
    etag = store_etag(with_tries(shard, lambda: fs.info(path)))
    if etag is not None and etag != shard.etag:
        raise changed(shard, f"etag {etag} instead of {shard.etag}")
    with ranged_file(shard, window_bytes, ahead=ahead) as file:
        yield file


def changed(shard: Shard, how: str) -> ShardUnreadable:
    """The error of a shard that is not what was planned."""
    return ShardUnreadable(f"{shard.url}: changed since the plan, {how}; restore it, or plan it into a new output")


def check_unchanged(file: BinaryIO, shard: Shard) -> None:
    """Compare a local file in place with its listing; a fetched copy cannot change.

    If another file takes its name, the open file is still the old one.

    Raises:
        ShardUnreadable: it was written to since.
    """
    current = os.fstat(file.fileno())
    modified = f"mtime-{current.st_mtime_ns}"
    if shard.etag.startswith("mtime-") and (current.st_size, modified) != (shard.size, shard.etag):
        raise changed(shard, f"{current.st_size} bytes, {modified} instead of {shard.size} bytes, {shard.etag}")


KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISDIR, "a folder"),
)


def not_regular(mode: int) -> str | None:
    """The kind of a file that is not regular, or None. Such a file may have no end, or block until it has a writer."""
    return next((kind for is_kind, kind in KINDS if is_kind(mode)), None)


def open_regular(path: str) -> BinaryIO:
    """Open a regular local file, without blocking on other kinds.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    # Without O_NONBLOCK opening a named pipe blocks until there is a writer.
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
            # After the fetch: an object that was replaced before or during it has another etag now.
            fs.invalidate_cache(path)
            etag = store_etag(fs.info(path))
            return copy.open("rb"), etag

    file, etag = with_tries(shard, fetch)
    if etag is not None and etag != shard.etag:
        file.close()
        raise changed(shard, f"etag {etag} instead of {shard.etag}")
    return file


def store_etag(info: Mapping[str, Any]) -> str | None:
    """The etag of an object in S3 or GCS, in a listing or a HEAD; None if there is none."""
    etag = info.get("ETag") or info.get("etag")
    return str(etag).strip('"') if etag else None


def list_with_tries(what: str, request: Callable[[], T]) -> T:
    """Return the result of `request`, a listing. It is repeated after a transient error; others are raised unchanged.

    Raises:
        StoreError: all `TRIES` ended with a transient error.
    """
    return _with_tries(
        what,
        request,
        is_transient,
        lambda err: StoreError(
            f"{what}: cannot be listed, {TRIES} tries ({type(err).__name__}: {err}); run again when the store answers, "
            "or check its address"
        ),
    )


def with_tries(shard: Shard, request: Callable[[], T]) -> T:
    """Return the result of `request`, which reads from a store. It is repeated after an error of the store.

    Raises:
        ShardUnreadable: the object is missing, or cannot be read in `TRIES`.
    """
    try:
        return _with_tries(
            f"shard={shard.url}",
            request,
            lambda err: not isinstance(err, FileNotFoundError | PermissionError),
            lambda err: ShardUnreadable(
                f"{shard.url}: cannot be fetched, {TRIES} tries ({type(err).__name__}: {err}); "
                f"check the store and the space in {tempfile.gettempdir()}, then retry"
            ),
        )
    except (FileNotFoundError, PermissionError) as err:
        raise ShardUnreadable(
            f"{shard.url}: cannot be read ({type(err).__name__}: {err}); restore it or its permissions and retry"
        ) from err


def _with_tries(
    what: str,
    request: Callable[[], T],
    repeats: Callable[[Exception], bool],
    last_error: Callable[[Exception], PipelineError],
) -> T:
    """Return the result of `request`; repeat it after the errors of a store for which `repeats` is true."""
    for attempt in range(1, TRIES + 1):
        try:
            return request()
        except store_errors() as err:
            if not repeats(err):
                raise
            if attempt == TRIES:
                raise last_error(err) from err
            log.warning("%s try=%d of %d: %s: %s", what, attempt, TRIES, type(err).__name__, err)
            time.sleep(RETRY_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
    raise AssertionError("every turn returns or raises")
