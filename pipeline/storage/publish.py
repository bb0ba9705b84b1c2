"""Conditional writes with a certain result, also after a lost answer, a retry inside a client, or a race."""

import logging
import random
import time
import uuid
from collections.abc import Callable

from pipeline.errors import StoreError
from pipeline.storage.store import Store, WriteResult

log = logging.getLogger(__name__)

MAX_BYTES = 100_000_000
"""From 100 MiB on s3fs sends several parts, and stores such as Ceph 16.2 ignore the condition on their completion."""

TRIES = 6
BACKOFF_S = 0.1
"""Waits are random below 0.1, 0.2, ... 1.6 s, on top of the client's own retries: a 409 race ends in milliseconds."""

PROBE_PREFIX = "staging/.probe-"


def put_if_absent(store: Store, path: str, data: bytes, attempt: str) -> WriteResult:
    """Create a file; if it exists, return who wrote it.

    Args:
        store: where.
        path: the final name.
        data: below `MAX_BYTES`, with `attempt` in it, so that equal bytes prove that this write made the file.
        attempt: unique to this write, uuid4 hex.

    Raises:
        StoreError: refused, or no clear answer after `TRIES`. Delete nothing then: the file may exist.
    """
    _check(store, path, data, attempt)
    return _certain(store, path, data, lambda: store.create(path, data), WriteResult.CREATED)


def put_idempotent(store: Store, path: str, data: bytes) -> WriteResult:
    """Create a file whose content follows from its name: CREATED, OURS if it has the same content, else EXISTS.

    Of any size: where a store ignores the condition on several parts, the overwritten content is the same.

    Raises:
        StoreError: as `put_if_absent`.
    """
    return _certain(store, path, data, lambda: store.create(path, data), WriteResult.CREATED)


def replace_if(store: Store, path: str, data: bytes, version: str, attempt: str) -> WriteResult:
    """Replace a file if it still has the version that was read: REPLACED or OURS, and EXISTS if another was faster.

    Arguments and errors are those of `put_if_absent`; `version` is that of `Store.get_versioned`.
    """
    _check(store, path, data, attempt)
    return _certain(store, path, data, lambda: store.replace(path, data, version), WriteResult.REPLACED)


def _check(store: Store, path: str, data: bytes, attempt: str) -> None:
    if attempt.encode() not in data:
        raise ValueError(f"{path}: attempt {attempt!r} is not in the data, so a lost answer could not be recognised")
    if len(data) >= MAX_BYTES:
        raise StoreError(
            f"{store.url}/{path}: {len(data)} bytes; a committed file stays below {MAX_BYTES}, "
            "since it must be one conditional request. Make the source's shards smaller"
        )


def _certain(store: Store, path: str, data: bytes, write: Callable[[], None], done: WriteResult) -> WriteResult:
    """Write conditionally, and repeat until the result is known."""
    unclear: OSError | None = None
    for num_try in range(TRIES):
        if num_try:
            time.sleep(random.random() * BACKOFF_S * 2 ** (num_try - 1))
        try:
            write()
        except FileExistsError:
            owner = _owner(store, path, data)
            if owner:
                return owner
        except OSError as err:
            unclear = err
            log.warning("path=%s try=%d conditional write without a clear answer: %r", path, num_try + 1, err)
        else:
            return done
    raise StoreError(
        f"{store.url}/{path}: no clear answer to {TRIES} conditional writes (last: {unclear!r}); the file may or may "
        "not exist, nothing was removed. Run again when the store answers: the next run looks first"
    )


def _owner(store: Store, path: str, data: bytes) -> WriteResult | None:
    """Whether this write made the file; None if it cannot be read after all."""
    try:
        existing = store.get(path)
    except FileNotFoundError:
        return None
    return WriteResult.OURS if existing == data else WriteResult.EXISTS


def probe(store: Store) -> None:
    """Check that the store refuses to create an existing file; takes three to five requests.

    Raises:
        StoreError: it does not, so two runs could both believe to have committed a shard.
    """
    path = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    first, second = uuid.uuid4().hex, uuid.uuid4().hex
    try:
        outcomes = [put_if_absent(store, path, attempt.encode(), attempt) for attempt in (first, second)]
        kept = store.get(path).decode(errors="replace")
    finally:
        _remove_probe(store, path)
    if outcomes[0] is WriteResult.EXISTS or outcomes[1] is not WriteResult.EXISTS or kept != first:
        raise StoreError(
            f"{store.url}: does not honour create-if-absent: creating one file twice returned "
            f"{' and '.join(outcomes)}, and {'the first' if kept == first else 'another'} content is stored. Put the "
            "output on AWS S3, MinIO or another S3 with If-None-Match, on GCS, or on a local disk"
        )


def _remove_probe(store: Store, path: str) -> None:
    """Remove the probe's file; a failure does not end the run, since `clean` removes the file later."""
    try:
        store.delete([path])
    except StoreError as err:
        log.warning("path=%s stays until `joyfleet clean`: %s", path, err)
