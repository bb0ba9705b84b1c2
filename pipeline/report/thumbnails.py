"""Thumbnails for caption rows, read from the source: from few shards, and only the first rows of each."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.errors import BadImage, ShardUnreadable
from pipeline.images import decode, thumbnail_uri
from pipeline.readers import SourceRow, open_head
from schemas.shard import Shard

log = logging.getLogger(__name__)

SIDE_PX = 240
"""Pixels of the longer side."""
SHARDS = 48
"""Maximum number of shards that are opened; rows of others are shown without an image."""
READERS = 8
"""Shards that are read concurrently."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture, or why there is none."""

    uri: str | None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where the images of an output come from."""

    shards: Mapping[str, Shard]
    source: SourceConfig
    images: ImagesConfig
    side_px: int = SIDE_PX
    """Of the longer side of a thumbnail."""


def read_thumbnails(origin: ImageSource, rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], Thumbnail]:
    """Return the thumbnail of each caption row, by shard and row; an error becomes the reason for a missing one."""
    wanted: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        if row["width"] and row["height"]:
            wanted.setdefault(row["shard"], {})[row["row"]] = row
    opened = list(wanted)[:SHARDS]
    pictures: dict[tuple[str, int], Thumbnail] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for shard, thumbnails in zip(
            opened, pool.map(lambda name: _of_shard(origin, name, wanted[name]), opened), strict=True
        ):
            pictures |= {(shard, row): thumbnail for row, thumbnail in thumbnails.items()}
    skipped = Thumbnail(None, f"not read: a page shows the images of {SHARDS} shards only")
    return {(shard, row): pictures.get((shard, row), skipped) for shard, of_shard in wanted.items() for row in of_shard}


def _of_shard(origin: ImageSource, name: str, rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Thumbnail]:
    shard = origin.shards.get(name)
    if shard is None:
        return dict.fromkeys(rows, Thumbnail(None, "its shard is not in the plan"))
    try:
        with open_head(shard, origin.source, origin.images.max_bytes, max(rows) + 1) as opened:
            pictures = {row.row: _thumbnail(origin, rows[row.row], row) for row in opened.rows(set(rows))}
    except ShardUnreadable as err:
        log.warning("%s", err)
        return dict.fromkeys(rows, Thumbnail(None, f"its shard cannot be read: {err}"))
    return {row: pictures.get(row, Thumbnail(None, "the source has no such row now")) for row in rows}


def _thumbnail(origin: ImageSource, row: Mapping[str, Any], source: SourceRow) -> Thumbnail:
    if source.data is None:
        return Thumbnail(None, source.message or str(source.reason))
    if hashlib.sha256(source.data).hexdigest() != row["image_sha256"]:
        return Thumbnail(None, "the source has another image in this row now")
    try:
        decoded = decode(source.data, origin.images, _fit(row["width"], row["height"], origin.side_px))
    except BadImage as err:
        return Thumbnail(None, str(err))
    return Thumbnail(thumbnail_uri(decoded.pixels))


def _fit(width: int, height: int, side_px: int) -> tuple[int, int]:
    """The size with a longer side of `side_px` and the same aspect ratio; small images keep their size."""
    scale = min(1.0, side_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
