"""S3 and compatible stores: exclusive creation is one PUT with `If-None-Match: *`.

Credentials, region and endpoint come from the environment or the instance's role alone
(AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL_S3, ...), as botocore reads them.
"""

import errno
import functools
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import aiohttp
import s3fs
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ConnectionError,  # noqa: A004 - botocore's own name
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)
from botocore.utils import parse_timestamp
from fsspec.asyn import sync

from pipeline.errors import StoreError
from pipeline.storage.s3_listing import list_keys
from pipeline.storage.store import Entry, checked

log = logging.getLogger(__name__)

ONE_PUT_BYTES = 1 << 31
"""s3fs sends parts from twice this on (S3 takes 5 GiB in one PUT): a creation is always one request."""

TRIES = 5
"""Of idempotent requests, after `TRANSIENT_CODES` and `TRANSIENT_ERRORS`. Conditional writes are repeated by
`pipeline.storage.publish` only."""
BACKOFF_S = 0.1
"""Waits are random below 0.1, 0.2, 0.4 and 0.8 s, on top of those of botocore and s3fs."""

SHOWN = 3
"""Keys in a message."""

DELETE_KEYS = 1000
"""The most keys that S3 takes in one DeleteObjects."""

CLIENT_ERRORS = (OSError, BotoCoreError, aiohttp.ClientError)
"""s3fs turns answers of S3 into OSErrors; errors without an answer keep the type of botocore or aiohttp."""

NO_ANSWER = (TimeoutError, ConnectionError, HTTPClientError, FlexibleChecksumError, aiohttp.ClientError)

TRANSIENT_CODES = {
    *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "OperationAborted"),
    *("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"),
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "500", "502", "503", "504"),
}
"""Error codes that another try may change, of a whole request and of one key of a DeleteObjects."""

S3FS_REPEATS = {"SlowDown", "XAmzContentSHA256Mismatch"}
"""Codes of a whole request that s3fs itself repeats five times, as it does requests without an answer. Repeating them
here would wait five times as long for a store that does not come back."""

TRANSIENT_ERRORS = (FlexibleChecksumError, IncompleteReadError, ResponseStreamingError, aiohttp.ClientError)
"""An incomplete body, or one that does not match its checksum."""

REFUSALS = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG, errno.EMSGSIZE}
"""Errnos that s3fs raises for final answers; after others (EBUSY of a 503 or 409, EREMOTEIO of a 500) the result is
unknown."""


@dataclass(frozen=True, slots=True)
class S3Store:
    """`s3://bucket/folder`."""

    url: str

    def get(self, path: str) -> bytes:
        return cast("bytes", self._with_tries(path, lambda: self._client().cat_file(self._at(path))))

    def put(self, path: str, data: bytes) -> None:
        try:
            self._with_tries(path, lambda: self._client().pipe_file(self._at(path), data))
        except FileNotFoundError as err:  # the bucket
            raise self._failed(path, err) from err

    def create(self, path: str, data: bytes) -> None:
        try:
            self._client().pipe_file(self._at(path), data, mode="create", chunksize=ONE_PUT_BYTES)
        except CLIENT_ERRORS as err:
            raise self._unwritten(path, err) from err

    def get_versioned(self, path: str) -> tuple[bytes, str]:
        """One GET, whose answer has both: two requests might see two versions."""
        bucket, key = self._bucket_and_key(checked(path))
        client = self._client()
        ask = functools.partial(sync, client.loop, _body_and_etag, client, bucket, key)
        return cast("tuple[bytes, str]", self._with_tries(path, ask))

    def replace(self, path: str, data: bytes, version: str) -> None:
        bucket, key = self._bucket_and_key(checked(path))
        try:
            self._client().call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=version)
        except CLIENT_ERRORS as err:
            raise self._unwritten(path, err) from err

    def list(self, folder: str) -> Iterator[Entry]:
        bucket, root = self._bucket_and_key("")
        prefix = f"{root}{checked(folder)}/" if folder else root
        return list_keys(
            lambda **request: self._call("list_objects_v2", folder, Bucket=bucket, **request),
            prefix,
            lambda item: Entry(item["Key"].removeprefix(root), item["Size"], item["LastModified"].timestamp()),
        )

    def delete(self, paths: Iterable[str]) -> None:
        bucket, _ = self._bucket_and_key("")
        keys = [self._bucket_and_key(checked(path))[1] for path in paths]
        refused: dict[str, str] = {}
        for start in range(0, len(keys), DELETE_KEYS):
            refused |= self._delete(bucket, keys[start : start + DELETE_KEYS])
        if refused:
            shown = ", ".join(f"s3://{bucket}/{key} ({code})" for key, code in list(refused.items())[:SHOWN])
            more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
            raise StoreError(
                f"{self.url}: {len(refused)} of {len(keys)} files are not deleted: {shown}{more}; check the bucket's "
                "policy, or try again when the store answers"
            )

    def _delete(self, bucket: str, keys: Sequence[str]) -> dict[str, str]:
        """Remove up to `DELETE_KEYS` keys; return those that S3 still refuses, with their error codes."""
        refused = dict.fromkeys(keys, "")
        for num_try in range(TRIES):
            if num_try:
                log.warning(
                    "%d keys were not deleted, try=%d: %s", len(refused), num_try, list(refused.items())[:SHOWN]
                )
                _pause(num_try)
            objects = [{"Key": key} for key in refused]
            answer = self._call("delete_objects", "", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            refused = {str(error.get("Key")): str(error.get("Code")) for error in answer.get("Errors", [])}
            if not TRANSIENT_CODES.intersection(refused.values()):
                break
        return refused

    def exists(self, path: str) -> bool:
        bucket, key = self._bucket_and_key(checked(path))
        try:
            self._call("head_object", path, Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    def _unwritten(self, path: str, err: Exception) -> OSError | StoreError:
        """The error for a failed conditional write: refused by its condition, refused otherwise, or unknown."""
        status, code = _answer(err)
        if isinstance(err, FileExistsError) or status == 412 or code == "PreconditionFailed":
            return FileExistsError(f"{self.url}/{path}")
        if _refused(err):
            return self._failed(path, err)
        return OSError(f"{self.url}/{path}: {type(err).__name__}: {err}")

    def _call(self, method: str, path: str, **arguments: object) -> dict[str, Any]:
        """Send one request and return S3's answer. Raises FileNotFoundError if a HEAD finds nothing."""
        try:
            answer = self._with_tries(path, lambda: self._client().call_s3(method, **arguments))
        except FileNotFoundError as err:
            if method == "head_object":
                raise
            raise self._failed(path, err) from err
        return cast("dict[str, Any]", answer)

    def _with_tries(self, path: str, ask: Callable[[], object]) -> object:
        """Return the result of `ask`, idempotent and repeated after transient errors. Raises FileNotFoundError."""
        for num_try in range(1, TRIES + 1):
            try:
                return ask()
            except FileNotFoundError:
                raise
            except CLIENT_ERRORS as err:
                if num_try == TRIES or not _is_transient(err):
                    raise self._failed(path, err) from err
                log.warning("path=%s try=%d failed and is retried: %r", path, num_try, err)
            _pause(num_try)
        raise AssertionError("the last try returns or raises")

    def _client(self) -> s3fs.S3FileSystem:
        return _client(quick_session())

    def _at(self, path: str) -> str:
        return f"{self.url.removeprefix('s3://')}/{checked(path)}"

    def _bucket_and_key(self, path: str) -> tuple[str, str]:
        bucket, _, root = self.url.removeprefix("s3://").partition("/")
        return bucket, f"{root}/{path}" if root else path

    def _failed(self, path: str, err: Exception) -> StoreError:
        return StoreError(
            f"{self.url}/{path}: S3 failed ({type(err).__name__}: {err}); "
            "check the bucket, its policy, the credentials in the environment, and AWS_ENDPOINT_URL_S3 if it is not AWS"
        )


async def _body_and_etag(client: s3fs.S3FileSystem, bucket: str, key: str) -> tuple[bytes, str]:
    answer = cast("dict[str, Any]", await client._call_s3("get_object", Bucket=bucket, Key=key))  # pyright: ignore[reportPrivateUsage] - call_s3 is it, but gives no time to read the body
    async with answer["Body"] as body:
        return await body.read(), str(answer["ETag"])


@functools.lru_cache(maxsize=8)
def _client(session: AioSession) -> s3fs.S3FileSystem:
    """One client for each session, and so for each process: a client made before a fork hangs in the child.

    `max_concurrency=1`: with more, s3fs requests the size before each GET, and the two requests may see two versions.
    """
    return s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True, max_concurrency=1, session=session)


def quick_session() -> AioSession:
    """A session whose clients list four times as fast: a page of 1,000 keys is parsed in 17 and not 65 ms.

    botocore parses the time of each key with dateutil, which guesses the format. A process uses one session as long
    as its AWS variables stay the same: a session keeps the endpoint and the credentials of its start.
    """
    return _session(os.getpid(), tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))))


@functools.lru_cache(maxsize=8)
def _session(pid: int, environment: tuple[tuple[str, str], ...]) -> AioSession:  # noqa: ARG001 - both are the key
    session = AioSession()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return session


def _time(value: str) -> datetime:
    """Times are ISO 8601 in listings, and of HTTP's form in headers."""
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return parse_timestamp(value)


def _pause(num_try: int) -> None:
    time.sleep(random.random() * BACKOFF_S * 2 ** (num_try - 1))


def _is_transient(err: Exception) -> bool:
    return isinstance(err, TRANSIENT_ERRORS) or _answer(err)[1] in TRANSIENT_CODES - S3FS_REPEATS


def _answer(err: Exception) -> tuple[int | None, str | None]:
    """HTTP status and error code of S3's answer, if there was one."""
    response: dict[str, Any] = getattr(err.__cause__, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), response.get("Error", {}).get("Code")


def _refused(err: Exception) -> bool:
    """Whether nothing can have been written."""
    if isinstance(err, NO_ANSWER):
        return False
    if isinstance(err, OSError):
        return isinstance(err, PermissionError | FileNotFoundError) or err.errno in REFUSALS
    return True  # botocore before it sent anything: no credentials, a bad bucket name
