"""Finds the first rows that a selection selects, shard after shard, and reads no shard behind the last of them.

Without conditions a shard is counted by its directory or footer where its format has one, else by its headers. With
conditions its rows are screened, which reads the images only if a condition is about them. A shard that is fetched
from a store for this is fetched again by the run. With an index that has the fields of the conditions, no shard is
read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from pipeline.errors import ShardUnreadable
from pipeline.images import IsolatedDecoder
from pipeline.readers import open_shard
from pipeline.readers.formats import count_images
from pipeline.selection import Duplicates
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.row_screen import RowScreen
from schemas.shard import Shard


def find_limit(
    spec: ReadSpec, shards: Sequence[Shard], limit: int, duplicates: Mapping[str, Duplicates] | None = None
) -> dict[str, int | None]:
    """Return the shards that hold the first `limit` selected rows, in order, each with the end of its rows.

    The end is None where the limit is not reached in the shard: all of its rows are within it. A shard that cannot be
    read has the end 0, so that it adds no row if it is restored later.

    Args:
        spec: how shards are read, and the selection.
        shards: in the order in which rows are counted.
        limit: rows wanted.
        duplicates: by shard; its followers are not counted.
    """
    # The parent's rows of a chained job say everything about the images that conditions test.
    spec = replace(spec, source=spec.source.without_images())
    end_rows: dict[str, int | None] = {}
    left = limit
    for shard in shards:
        if not left:
            break
        try:
            selection = replace(spec.selection, duplicates=(duplicates or {}).get(shard.path))
            first = list(islice(_selected(replace(spec, selection=selection), shard), left))
        except ShardUnreadable:
            end_rows[shard.path] = 0
            continue
        left -= len(first)
        end_rows[shard.path] = None if left else first[-1] + 1
    return end_rows


def _selected(spec: ReadSpec, shard: Shard) -> Iterator[int]:
    """The numbers of the selected rows of a shard, ascending."""
    decided = spec.index.decide(spec.selection, shard) if spec.index else None
    if decided is not None:
        yield from (row.row for row in decided if row.skip is None)
        return
    if spec.selection.parts or any(spec.source.parent_needs):
        yield from _screened(spec, shard)
        return
    num_images = _num_images(spec, shard)
    yield from (row for row in range(num_images) if spec.selection.skip_by_identity(shard.path, row) is None)


def _num_images(spec: ReadSpec, shard: Shard) -> int:
    if shard.size:
        counted = count_images(shard, spec.source)
        if counted.exact:
            return round(counted.num_images)
    with open_shard(shard, spec.source, spec.images.max_bytes) as opened:
        return opened.num_images


def _screened(spec: ReadSpec, shard: Shard) -> Iterator[int]:
    with IsolatedDecoder() as decoder, open_shard(shard, spec.source, spec.images.max_bytes) as opened:
        screen = RowScreen(spec.selection, spec.images, shard.path, decoder.header)
        for row in opened.rows(None, screen.before_image):
            if screen.skip_of(row) is None:
                yield row.row
