"""Finds the first rows that a selection selects, shard after shard, and reads no shard behind the last of them.

Without conditions a shard is counted by its directory or footer where its format has one, else by its headers. With
conditions its rows are screened, which reads the images only if a condition is about them. A shard that is fetched
from a store for this is fetched again by the run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from pipeline.errors import ShardUnreadable
from pipeline.images import IsolatedDecoder
from pipeline.readers import open_shard
from pipeline.readers.formats import count_images
from pipeline.stages.read_batches import ReadSpec
from pipeline.stages.row_screen import RowScreen
from schemas.shard import Shard


def find_limit(spec: ReadSpec, shards: Sequence[Shard], limit: int) -> dict[str, int | None]:
    """Return the shards that hold the first `limit` selected rows, in order, each with the end of its rows.

    The end is None where the limit is not reached in the shard: all of its rows are within it. A shard that cannot be
    read has the end 0, so that it adds no row if it is restored later.
    """
    # The parent's rows of a chained job say everything about the images that conditions test.
    spec = replace(spec, source=spec.source.without_images())
    end_rows: dict[str, int | None] = {}
    left = limit
    for shard in shards:
        if not left:
            break
        try:
            first = list(islice(_selected(spec, shard), left))
        except ShardUnreadable:
            end_rows[shard.path] = 0
            continue
        left -= len(first)
        end_rows[shard.path] = None if left else first[-1] + 1
    return end_rows


def _selected(spec: ReadSpec, shard: Shard) -> Iterator[int]:
    """The numbers of the selected rows of a shard, ascending."""
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
