"""What `joyfleet plan` shows about a source: the detected formats and splits, and the first rows."""

import json
from collections import Counter
from typing import TextIO

from jobs.progress_line import size
from jobs.terminal import echo
from pipeline.config import JobConfig, SourceConfig
from pipeline.errors import ShardUnreadable
from pipeline.readers import Listed, SourceRow, format_of, list_source, open_head
from pipeline.readers.img2dataset import downloads
from pipeline.readers.splits import split_of

MAX_FETCH_BYTES = 1 << 30
"""A larger shard is not opened where its format needs the whole shard for the first rows."""

SHOWN = 5
"""Reasons of failed downloads."""
WIDTH = 140
"""Characters of a row."""


def show_source(job: JobConfig, num_rows: int, out: TextIO) -> None:
    """Print a summary of a source's listing, and the first `num_rows` rows of its first shard; 0 reads none."""
    source = job.source.without_images()
    listed = list_source(source)
    kinds = Counter(format_of(shard).name for shard in listed.shards)
    echo("found: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items())), file=out)
    splits = Counter(split_of(shard.path) for shard in listed.shards)
    if set(splits) - {None}:
        names = ", ".join(f"{name or 'none'} {count:,}" for name, count in sorted(splits.items(), key=str))
        echo(f"splits: {names}; choose one with source.split", file=out)
    for remark in listed.remarks:
        echo(f"note: {remark}", file=out)
    if listed.stats:
        _show_downloads(listed, source.urls[0], out)
    if num_rows:
        # All fields are shown: these can be listed in `source.metadata_fields`.
        _show_rows(job, source.model_copy(update={"metadata_fields": ("*",)}), listed, num_rows, out)


def _show_downloads(listed: Listed, url: str, out: TextIO) -> None:
    counts = downloads(listed.stats, url)
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in counts.reasons[:SHOWN])
    of = "" if counts.files == len(listed.stats) else f", by {counts.files:,} of {len(listed.stats):,} _stats.json"
    failed = f"{counts.requested - counts.downloaded:,} failed" + (f" ({reasons})" if reasons else "")
    echo(f"img2dataset: {counts.requested:,} URLs, {counts.downloaded:,} images, {failed}{of}", file=out)


def _show_rows(job: JobConfig, source: SourceConfig, listed: Listed, num_rows: int, out: TextIO) -> None:
    shard = listed.shards[0]
    if shard.size > MAX_FETCH_BYTES and format_of(shard).open_head is None:
        echo(f"{shard.path}: {size(shard.size)}, not looked into", file=out)
        return
    try:
        with open_head(shard, source, job.images.max_bytes, num_rows, fields=source.metadata_fields) as opened:
            echo(f"{shard.path} begins with: {opened.layout}", file=out)
            for row in opened.rows(range(num_rows)):
                line = f"  {row.row}  {row.key}  {_image(row)}  {json.dumps(row.metadata, ensure_ascii=False)}"
                echo(line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}...", file=out, one_line=True)
    except ShardUnreadable as err:
        echo(f"{err}; it would go to quarantine", file=out)


def _image(row: SourceRow) -> str:
    """The size of the encoded image, or why it has none."""
    if row.reason is not None:
        return str(row.message)
    num_bytes = len(row.data) if row.data is not None else row.parent and row.parent.num_bytes
    return "no image" if num_bytes is None else size(num_bytes)
