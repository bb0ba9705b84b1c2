"""Reads a shard into batches: rows in order, each image decoded, rows that an earlier run staged left out.

Reading and decoding are one step: a reader is never faster than a decoder, and encoded images do not pass through the
object store.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import BadImage, PipelineError, ShardUnreadable
from pipeline.images import Decoded, IsolatedDecoder, SizeOf, decode_or_exit
from pipeline.ledger.fragments import FragmentInfo
from pipeline.models import Geometry
from pipeline.readers import LeftOut, SourceRow, open_shard
from schemas.batch import BATCH, BatchKind
from schemas.shard import Shard
from schemas.status import Reason

log = logging.getLogger(__name__)

Decode = Callable[[bytes, ImagesConfig, SizeOf], Decoded]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpec:
    """How shards are read; pickles."""

    source: SourceConfig
    images: ImagesConfig
    geometry: Geometry
    """Of the decoded pixels."""
    batch_images: int


@dataclass(slots=True)
class ReadTimings:
    """Figures of a reader beside its batches, for people; no decision depends on them."""

    decode_s: float = 0.0
    """Seconds so far."""
    on_timeout: Callable[[], object] = lambda: None
    """Called for each image that reaches `images.timeout_s`: a batch of 64 such images may take an hour."""
    left_out: tuple[LeftOut, ...] = field(default=())
    """Images of the shard that are not rows, known before its first batch."""


def read_shard(
    spec: ReadSpec,
    shard: Shard,
    staged: Sequence[FragmentInfo],
    rows: Sequence[int] | None = None,
    *,
    isolated: bool = False,
    timings: ReadTimings | None = None,
) -> Iterator[pa.Table]:
    """Yield the batches of a shard: first one for each staged fragment, then the images in row order.

    The same arguments give the same batches, so a retried task emits the same batches again.

    Each batch is yielded only after a check that the shard is still the planned one, so that no other content is staged
    under its etag. The batch with the last row is yielded after the shard is closed, when nothing can fail any more: a
    shard is either complete or quarantined, never both.

    Args:
        spec: how to read.
        shard: what to read.
        staged: valid fragments of an earlier run; their rows are neither read nor decoded.
        rows: read only these; by default all.
        isolated: decode in another process, since an image of this shard may have killed its reader. Otherwise an image
            that takes longer than `images.timeout_s` ends this process.
        timings: updated while batches are yielded.
    """
    done: set[int] = set()
    for fragment in staged:
        yield _resumed(shard, fragment)
        done.update(fragment.rows.tolist())
    if staged and len(done) == staged[0].num_images:
        return
    try:
        yield from _read(spec, shard, done, rows, isolated=isolated, timings=timings or ReadTimings())
    except ShardUnreadable as err:
        yield _table(BatchKind.UNREADABLE, shard, 0, message=_clean(str(err)))
    except (PipelineError, MemoryError):
        raise
    # A defect boundary: malformed bytes may raise anything in our readers and in the libraries below them. It costs
    # this shard only; the run continues, and the quarantine record and the log have the traceback.
    except Exception as err:  # noqa: BLE001 - see above
        yield _defect(shard, err)


def _read(
    spec: ReadSpec, shard: Shard, done: set[int], rows: Sequence[int] | None, *, isolated: bool, timings: ReadTimings
) -> Iterator[pa.Table]:
    last: pa.Table | None = None
    with IsolatedDecoder() as decoder, open_shard(shard, spec.source, spec.images.max_bytes) as opened:
        timings.left_out = opened.left_out
        wanted = range(opened.num_images) if rows is None else rows
        wanted = set(wanted) - done if done else wanted
        num_left = len(wanted)
        for batch in _batches(
            spec, opened.rows(wanted), _timed(decoder.decode if isolated else decode_or_exit, timings)
        ):
            table = batch.table(shard, opened.num_images)
            opened.check()
            num_left -= len(batch.images)
            if num_left:
                yield table
            else:
                last = table
        if opened.num_images == 0:
            last = _table(BatchKind.EMPTY, shard, 0)
    if last is not None:
        yield last


def _defect(shard: Shard, err: Exception) -> pa.Table:
    trace = _clean("".join(traceback.format_exception(err)))
    # Escaped: a log file refuses the lone surrogates that a name or an exception may contain.
    log.error("shard=%s: a defect of JoyFleet\n%s", _clean(shard.path), trace)
    message = (
        f"{shard.url}: a defect of JoyFleet ended its reading ({type(err).__name__}: {err}); please report it with the "
        "traceback in the shard's quarantine record, and restore or remove the shard"
    )
    return _table(BatchKind.UNREADABLE, shard, 0, message=_clean(message), traceback=trace)


def _clean(text: str) -> str:
    """Escape what Arrow refuses: a name that is not UTF-8 has lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def batches_of(spec: ReadSpec, shard: Shard, num_images: int, rows: Iterable[SourceRow]) -> Iterator[pa.Table]:
    """Yield the batches of rows that were read before; an image that kills its decoder becomes a failed row."""
    with IsolatedDecoder() as decoder:
        yield from (batch.table(shard, num_images) for batch in _batches(spec, iter(rows), decoder.decode))


def _timed(decode: Decode, timings: ReadTimings) -> Decode:
    def timed(data: bytes, config: ImagesConfig, size: SizeOf) -> Decoded:
        started = time.perf_counter()
        try:
            return decode(data, config, size)
        except BadImage as err:
            if err.reason is Reason.DECODE_TIMEOUT:
                timings.on_timeout()
            raise
        finally:
            timings.decode_s += time.perf_counter() - started

    return timed


def _batches(spec: ReadSpec, rows: Iterator[SourceRow], decode: Decode) -> Iterator[_Batch]:
    batch = _Batch(spec, decode)
    for row in rows:
        batch.add(row)
        if len(batch.images) == spec.batch_images:
            yield batch
            batch = _Batch(spec, decode)
    if batch.images:
        yield batch


class _Batch:
    """A batch that is being filled; its pixels follow each other in one buffer."""

    def __init__(self, spec: ReadSpec, decode: Decode) -> None:
        self._decoder = decode
        self._spec = spec
        # Virtual memory until it is written.
        self._pixels: npt.NDArray[np.uint8] = np.empty(spec.batch_images * spec.geometry.max_pixels * 3, np.uint8)
        self._num_bytes = 0
        self.images: list[dict[str, Any]] = []

    def add(self, row: SourceRow) -> None:
        image: dict[str, Any] = {
            "row": row.row,
            "key": row.key,
            "source": json.dumps(row.metadata, ensure_ascii=False, sort_keys=True),
            "reason": row.reason.value if row.reason else None,
            "message": None if row.message is None else _clean(row.message),
        }
        if row.data is not None:
            image |= self._decode(bytes(row.data))
        self.images.append(image)

    def _decode(self, data: bytes) -> dict[str, Any]:
        facts = {"image_sha256": hashlib.sha256(data).hexdigest(), "image_bytes": len(data)}
        try:
            decoded = self._decoder(data, self._spec.images, self._spec.geometry.size_of)
        except BadImage as err:
            return {**facts, "reason": err.reason.value, "message": err.message}
        end = self._num_bytes + decoded.pixels.size
        self._pixels[self._num_bytes : end] = decoded.pixels.reshape(-1)
        self._num_bytes = end
        height, width, _ = decoded.pixels.shape
        shape = {"pixels_width": width, "pixels_height": height}
        return {**facts, **shape, "image_format": decoded.format, "width": decoded.width, "height": decoded.height}

    def table(self, shard: Shard, num_images: int) -> pa.Table:
        pixels = self._pixels[: self._num_bytes]
        return _table(BatchKind.IMAGES, shard, num_images, images=self.images, pixels=pa.py_buffer(pixels))


def _table(kind: BatchKind, shard: Shard, num_images: int, **columns: Any) -> pa.Table:  # noqa: ANN401 - Arrow values
    pixels: pa.Buffer = columns.get("pixels") or pa.py_buffer(b"")
    offsets = pa.py_buffer(np.array([0, pixels.size], np.int64))
    shard_values = {"shard": shard.path, "size": shard.size, "etag": shard.etag, "num_images": num_images}
    values = {"kind": kind.value, "images": [], "rows": [], **shard_values, **columns, "pixels": None}
    arrays = {field.name: pa.array([values.get(field.name)], field.type) for field in BATCH}
    # From the buffer, since a list of one bytes object would copy the pixels twice.
    arrays["pixels"] = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, pixels])
    return pa.table(list(arrays.values()), schema=BATCH)


def fatal_batch(shard: Shard, error: PipelineError) -> pa.Table:
    """Return the batch that ends the run with `error`."""
    return _table(BatchKind.FATAL, shard, 0, error=pickle.dumps(error))


def skipped_batch(shard: Shard) -> pa.Table:
    """Return the batch of a shard that is not read, since the run drains."""
    return _table(BatchKind.SKIPPED, shard, 0)


def committed_batch(shard: Shard, num_images: int) -> pa.Table:
    """Return the batch of a shard that another run has committed since the plan was made."""
    return _table(BatchKind.COMMITTED, shard, num_images)


def _resumed(shard: Shard, fragment: FragmentInfo) -> pa.Table:
    return _table(BatchKind.RESUMED, shard, fragment.num_images, fragment=fragment.path, rows=fragment.rows.tolist())
