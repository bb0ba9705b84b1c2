"""Reads shards of any format and store as source rows: each image exactly once, in an order that never changes."""

from pipeline.readers.formats import FORMATS, format_of, open_head, open_shard
from pipeline.readers.source_listing import STATS_SUFFIX, Listed, list_shards, list_source
from pipeline.readers.source_row import (
    ColumnReader,
    FileReader,
    LeftOut,
    ParentImage,
    Screen,
    ShardReader,
    SourceRow,
    add_up,
)
from pipeline.readers.transport import open_local, part_file, store_errors

__all__ = [
    "FORMATS",
    "STATS_SUFFIX",
    "ColumnReader",
    "FileReader",
    "LeftOut",
    "Listed",
    "ParentImage",
    "Screen",
    "ShardReader",
    "SourceRow",
    "add_up",
    "format_of",
    "list_shards",
    "list_source",
    "open_head",
    "open_local",
    "open_shard",
    "part_file",
    "store_errors",
]
