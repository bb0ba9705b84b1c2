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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import ExistingConfig, ImagesConfig, SourceConfig
from pipeline.errors import BadImage, OutputMismatch, PipelineError, ShardUnreadable
from pipeline.images import Decoded, Header, IsolatedDecoder, SizeOf, decode_or_exit, header_or_exit
from pipeline.ledger.fragments import FragmentInfo
from pipeline.ledger.taken_over import TakenOver, to_stream
from pipeline.models import Geometry
from pipeline.readers import LeftOut, ParentImage, SourceRow, open_shard
from pipeline.selection import Selection
from pipeline.stages.existing_texts import existing_texts
from pipeline.stages.index_facts import IndexFacts
from pipeline.stages.row_screen import RowScreen
from schemas.batch import BATCH, BatchKind
from schemas.shard import Shard
from schemas.status import SKIPS, Reason

log = logging.getLogger(__name__)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

ROWS_PER_IMAGE = 16
"""A batch has up to `batch_images` images for the model, and so many times as many rows. Rows that need no request,
such as skipped ones, weigh a few hundred bytes: without this a filter that keeps one image in a hundred would write a
hundred fragments for each that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpec:
    """How shards are read; pickles."""

    source: SourceConfig
    images: ImagesConfig
    geometry: Geometry
    """Of the decoded pixels."""
    batch_images: int
    grown_batch_images: int | None = None
    """Of the batches after the first `num_small`; None: as `batch_images`."""
    num_small: int = 0
    selection: Selection = field(default_factory=Selection)
    """Of the shard that is read, so with the end of the limit in it."""
    duplicates_by: str = ""
    """As `source.duplicates.by`; empty without."""
    existing: Mapping[str, ExistingConfig] = field(default_factory=dict[str, ExistingConfig])
    """The slots that may take a text of the source."""
    schemas: Mapping[str, str] = field(default_factory=dict[str, str])
    """JSON Schemas of these slots, as JSON text."""
    num_slots: int = 1
    """Of the run."""
    index: IndexFacts | None = None
    """Of `source.index`: images that it knows not to be selected are not read."""
    taken_over: TakenOver = field(default_factory=TakenOver)
    """Of the shard that is read: its rows in earlier outputs, which need no request."""


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
        yield _table(BatchKind.UNREADABLE, shard, 0, message=clean_text(str(err)))
    except (PipelineError, MemoryError):
        raise
    # A defect boundary: malformed bytes may raise anything in our readers and in the libraries below them. It costs
    # this shard only; the run continues, and the quarantine record and the log have the traceback.
    except Exception as err:  # noqa: BLE001 - see above
        message, trace = explain_defect(shard, err)
        yield _table(BatchKind.UNREADABLE, shard, 0, message=message, traceback=trace)


def _read(
    spec: ReadSpec, shard: Shard, done: set[int], rows: Sequence[int] | None, *, isolated: bool, timings: ReadTimings
) -> Iterator[pa.Table]:
    last: pa.Table | None = None
    with IsolatedDecoder() as decoder, open_shard(shard, spec.source, spec.images.max_bytes) as opened:
        timings.left_out = opened.left_out
        _refuse_other_rows(spec.selection, shard, opened.num_images)
        tools = _tools(decoder, isolated=isolated, timings=timings)
        known = spec.index.of_images(shard) if spec.index and spec.selection.needs_image else None
        screen = RowScreen(spec.selection, spec.images, shard.path, tools.header, known)
        wanted = range(opened.num_images) if rows is None else rows
        wanted = set(wanted) - done if done else wanted
        num_left = len(wanted)
        unread = _unread(spec, shard, wanted)
        if unread:
            wanted = set(wanted) - {row.row for row in unread}
        source_rows = opened.rows(wanted, None if spec.selection.selects_all else screen.before_image)
        for batch in _batches(spec, chain(unread, source_rows), screen, tools):
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


def _refuse_other_rows(selection: Selection, shard: Shard, num_images: int) -> None:
    indexed = selection.duplicates.num_images if selection.duplicates else num_images
    if indexed != num_images:
        raise OutputMismatch(
            f"shard {shard.path}: has {num_images} images, and {indexed} rows in the index of source.duplicates; index "
            "the source into a new output, and caption into a new output with it"
        )


def _unread(spec: ReadSpec, shard: Shard, wanted: Iterable[int]) -> list[SourceRow]:
    """The rows that are taken over whole, if nothing in the source decides about them: they are not read."""
    if spec.selection.parts or not spec.taken_over.rows:
        return []
    return [
        SourceRow(row, str(spec.taken_over.rows[row][0]["key"]), None)
        for row in wanted
        if spec.taken_over.num_rows(row) == spec.num_slots and spec.selection.skip_by_identity(shard.path, row) is None
    ]


def explain_defect(shard: Shard, err: Exception) -> tuple[str, str]:
    """Log an exception that nobody expected; return what the shard's quarantine record says, and the traceback."""
    trace = clean_text("".join(traceback.format_exception(err)))
    # Escaped: a log file refuses the lone surrogates that a name or an exception may contain.
    log.error("shard=%s: a defect of JoyFleet\n%s", clean_text(shard.path), trace)
    message = (
        f"{shard.url}: a defect of JoyFleet ended its reading ({type(err).__name__}: {err}); please report it with the "
        "traceback in the shard's quarantine record, and restore or remove the shard"
    )
    return clean_text(message), trace


def clean_text(text: str) -> str:
    """Escape what Arrow refuses: a name that is not UTF-8 has lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def batches_of(spec: ReadSpec, shard: Shard, num_images: int, rows: Iterable[SourceRow]) -> Iterator[pa.Table]:
    """Yield the batches of rows that were read before; an image that kills its decoder becomes a failed row."""
    with IsolatedDecoder() as decoder:
        tools = _tools(decoder, isolated=True, timings=ReadTimings())
        screen = RowScreen(spec.selection, spec.images, shard.path, tools.header)
        yield from (batch.table(shard, num_images) for batch in _batches(spec, rows, screen, tools))


@dataclass(frozen=True, slots=True)
class _Tools:
    """How images are opened: in this process, or in an isolated one."""

    decode: Callable[[bytes, ImagesConfig, SizeOf], Decoded]
    header: Callable[[bytes, ImagesConfig], Header]


def _tools(decoder: IsolatedDecoder, *, isolated: bool, timings: ReadTimings) -> _Tools:
    decode, header = (decoder.decode, decoder.header) if isolated else (decode_or_exit, header_or_exit)
    return _Tools(_timed(decode, timings), _timed(header, timings))


def _timed(work: Callable[Arguments, Result], timings: ReadTimings) -> Callable[Arguments, Result]:
    def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        started = time.perf_counter()
        try:
            return work(*args, **kwargs)
        except BadImage as err:
            if err.reason is Reason.DECODE_TIMEOUT:
                timings.on_timeout()
            raise
        finally:
            timings.decode_s += time.perf_counter() - started

    return timed


def _batches(spec: ReadSpec, rows: Iterable[SourceRow], screen: RowScreen, tools: _Tools) -> Iterator[_Batch]:
    sizes = chain(repeat(spec.batch_images, spec.num_small), repeat(spec.grown_batch_images or spec.batch_images))
    batch = _Batch(spec, screen, tools, next(sizes))
    for row in rows:
        batch.add(row)
        if batch.is_full:
            yield batch
            batch = _Batch(spec, screen, tools, next(sizes))
    if batch.images:
        yield batch


class _Batch:
    """A batch that is being filled; its pixels follow each other in one buffer."""

    def __init__(self, spec: ReadSpec, screen: RowScreen, tools: _Tools, most: int) -> None:
        self._tools = tools
        self._spec = spec
        self._screen = screen
        self._most = most
        # Virtual memory until it is written.
        self._pixels: npt.NDArray[np.uint8] = np.empty(most * spec.geometry.max_pixels * 3, np.uint8)
        self._num_bytes = 0
        self._num_asked = 0
        self._taken_over: list[Mapping[str, Any]] = []
        self.images: list[dict[str, Any]] = []

    @property
    def is_full(self) -> bool:
        """Whether it has all the images for the model that it may have, or all the rows."""
        return self._num_asked == self._most or len(self.images) == self._most * ROWS_PER_IMAGE

    def add(self, row: SourceRow) -> None:
        image: dict[str, Any] = {
            "row": row.row,
            "key": row.key,
            "source": json.dumps(row.metadata, ensure_ascii=False, sort_keys=True),
            "reason": row.reason.value if row.reason else None,
            "message": None if row.message is None else clean_text(row.message),
            **_said_by(row.parent),
        }
        lost = self._screen.skip_of(row) if row.data is None else None
        if lost is not None:
            image |= {"reason": lost.reason.value, "message": clean_text(lost.condition)}
        elif row.data is not None:
            data = bytes(row.data)
            image |= {"image_sha256": hashlib.sha256(data).hexdigest(), "image_bytes": len(data)}
            try:
                image |= self._image(row, data)
            except BadImage as err:
                image |= {"reason": err.reason.value, "message": err.message}
        elif image["reason"] is None:
            image |= self._existing(row)
        if image["reason"] is None:
            self._taken_over += self._spec.taken_over.rows.get(row.row, ())
        image["duplicate_of"] = self._spec.selection.duplicate_of(row.row, image["reason"])
        # A failed image counts like one for the model.
        self._num_asked += image["reason"] not in SKIPS and not self._needs_no_request(image)
        self.images.append(image)

    def _image(self, row: SourceRow, data: bytes) -> dict[str, Any]:
        """Size and format of the image; its pixels go into the buffer if a request is sent for it."""
        skip, header = self._screen.judge(row, data)
        if skip is not None:
            return {**_facts_of(header), "reason": skip.reason.value, "message": clean_text(skip.condition)}
        spec = self._spec
        existing = self._existing(row)
        if not self._needs_no_request({"row": row.row, **existing}):
            return {**existing, **self._decode(data)}
        if existing:
            header = header or self._tools.header(data, spec.images)
        return {**existing, **_facts_of(header)}

    def _existing(self, row: SourceRow) -> dict[str, Any]:
        spec = self._spec
        texts = existing_texts(spec.existing, spec.schemas, row.metadata | row.tested) if spec.existing else {}
        return {"existing": json.dumps(texts, ensure_ascii=False)} if texts else {}

    def _needs_no_request(self, image: Mapping[str, Any]) -> bool:
        """Whether every slot of an image has its caption row already, or its text."""
        slots = {str(row["slot"]) for row in self._spec.taken_over.rows.get(image["row"], ())}
        slots |= set(json.loads(image.get("existing") or "{}"))
        return len(slots) == self._spec.num_slots

    def _decode(self, data: bytes) -> dict[str, Any]:
        decoded = self._tools.decode(data, self._spec.images, self._spec.geometry.size_of)
        end = self._num_bytes + decoded.pixels.size
        self._pixels[self._num_bytes : end] = decoded.pixels.reshape(-1)
        self._num_bytes = end
        height, width, _ = decoded.pixels.shape
        shape = {"pixels_width": width, "pixels_height": height}
        return {**shape, "image_format": decoded.format, "width": decoded.width, "height": decoded.height}

    def table(self, shard: Shard, num_images: int) -> pa.Table:
        pixels = self._pixels[: self._num_bytes]
        taken_over = to_stream(self._taken_over) if self._taken_over else None
        return _table(
            BatchKind.IMAGES,
            shard,
            num_images,
            images=self.images,
            pixels=pa.py_buffer(pixels),
            taken_over=taken_over,
        )


def _said_by(parent: ParentImage | None) -> dict[str, Any]:
    """What an output that is the source says about an image; what is read of the image itself replaces it."""
    if parent is None:
        return {}
    return {
        "image_sha256": parent.sha256,
        "image_bytes": parent.num_bytes,
        "image_format": parent.format,
        "width": parent.width,
        "height": parent.height,
        "parent_recipe": parent.recipe,
    }


def _facts_of(header: Header | None) -> dict[str, Any]:
    return {} if header is None else {"image_format": header.format, "width": header.width, "height": header.height}


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


def drained_batch(shard: Shard) -> pa.Table:
    """Return the batch of a shard that is not read, since the run drains."""
    return _table(BatchKind.DRAINED, shard, 0)


def committed_batch(shard: Shard, num_images: int) -> pa.Table:
    """Return the batch of a shard that another run has committed since the plan was made."""
    return _table(BatchKind.COMMITTED, shard, num_images)


def _resumed(shard: Shard, fragment: FragmentInfo) -> pa.Table:
    return _table(BatchKind.RESUMED, shard, fragment.num_images, fragment=fragment.path, rows=fragment.rows.tolist())
