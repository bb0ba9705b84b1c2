"""The index rows of one shard: what its images are, by their bytes, their headers and, on request, their pixels.

Every image is a row. One that cannot be read is a row with a reason, and with what is known of it all the same.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import BadImage, PipelineError, ShardUnreadable
from pipeline.images import Decoded, Header, IsolatedDecoder, decode_or_exit, header_or_exit
from pipeline.images.perceptual_hash import perceptual_hash, size_for_hash
from pipeline.readers import LeftOut, SourceRow, open_shard
from pipeline.stages.read_batches import clean_text, explain_defect
from schemas.index import INDEX_SCHEMA, Hash
from schemas.shard import Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSpec:
    """How shards are read and what is hashed; pickles."""

    source: SourceConfig
    images: ImagesConfig
    hashes: frozenset[Hash]


@dataclass(frozen=True, slots=True)
class IndexedShard:
    """The rows of a shard."""

    table: pa.Table
    left_out: tuple[LeftOut, ...]
    """Images of the shard that are not rows."""


@dataclass(frozen=True, slots=True)
class UnreadableShard:
    """A shard for quarantine."""

    message: str
    traceback: str | None = None
    """Of a defect of JoyFleet."""


@dataclass(frozen=True, slots=True)
class _Tools:
    """How images are opened: in this process, or in an isolated one."""

    header: Callable[[bytes, ImagesConfig], Header]
    decode: Callable[..., Decoded]


def index_shard(spec: IndexSpec, shard: Shard, *, isolated: bool = False) -> IndexedShard | UnreadableShard:
    """Return the rows of a shard, in its order.

    Args:
        spec: how to read.
        shard: what to read.
        isolated: open images in another process, since one of this shard may have killed its reader. Otherwise an image
            that takes longer than `images.timeout_s` ends this process.

    Raises:
        PipelineError: the decoder process does not start, or imagehash is missing.
    """
    try:
        return _read(spec, shard, isolated=isolated)
    except ShardUnreadable as err:
        return UnreadableShard(clean_text(str(err)))
    except (PipelineError, MemoryError):
        raise
    # A defect boundary, as in `read_batches`: malformed bytes cost this shard only, and the record has the traceback.
    except Exception as err:  # noqa: BLE001 - see above
        return UnreadableShard(*explain_defect(shard, err))


def _read(spec: IndexSpec, shard: Shard, *, isolated: bool) -> IndexedShard:
    with IsolatedDecoder() as decoder, open_shard(shard, spec.source, spec.images.max_bytes) as opened:
        tools = _Tools(decoder.header, decoder.decode) if isolated else _Tools(header_or_exit, decode_or_exit)
        rows = [{"shard": shard.path, **_row(spec, tools, row)} for row in opened.rows(None)]
        numbers = [row["row"] for row in rows]
        if numbers != list(range(opened.num_images)):
            raise PipelineError(
                f"{shard.url}: its reader gave {len(rows)} rows of {opened.num_images} images, not each once in order; "
                "please report it"
            )
        return IndexedShard(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), opened.left_out)


def _row(spec: IndexSpec, tools: _Tools, row: SourceRow) -> dict[str, Any]:
    known: dict[str, Any] = {
        "row": row.row,
        "key": row.key,
        "metadata": json.dumps(row.metadata, ensure_ascii=False, sort_keys=True),
        "reason": row.reason.value if row.reason else None,
        "error": None if row.message is None else clean_text(row.message),
    }
    if row.data is None:
        return known
    data = bytes(row.data)
    known["bytes"] = len(data)
    if Hash.SHA256 in spec.hashes:
        known["sha256"] = hashlib.sha256(data).hexdigest()
    try:
        known |= _of_pixels(spec, tools, data) if Hash.PHASH in spec.hashes else _facts(tools.header(data, spec.images))
    except BadImage as err:
        known |= {"reason": err.reason.value, "error": clean_text(err.message)}
        if Hash.PHASH in spec.hashes:
            known |= _of_header(spec, tools, data)
    return known


def _of_pixels(spec: IndexSpec, tools: _Tools, data: bytes) -> dict[str, Any]:
    decoded = tools.decode(data, spec.images, size_for_hash)
    return {**_facts(decoded), "phash": perceptual_hash(decoded.pixels)}


def _of_header(spec: IndexSpec, tools: _Tools, data: bytes) -> dict[str, Any]:
    """Size and format of an image that does not decode; nothing if its header cannot be read either."""
    try:
        return _facts(tools.header(data, spec.images))
    except BadImage:
        return {}


def _facts(image: Header | Decoded) -> dict[str, Any]:
    return {"format": image.format, "width": image.width, "height": image.height}
