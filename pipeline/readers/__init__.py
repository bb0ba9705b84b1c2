"""Shards of any store become source rows, each image exactly once, in an order that never changes."""

from pipeline.readers.formats import open_shard
from pipeline.readers.parquet import ParquetShard
from pipeline.readers.sample_reader import SampleShard
from pipeline.readers.shard_head import open_head
from pipeline.readers.source_listing import STATS_SUFFIX, Listed, list_shards, list_source
from pipeline.readers.source_row import JSON, LeftOut, ShardReader, SourceRow, add_up
from pipeline.readers.transport import open_local

__all__ = [
    "JSON",
    "STATS_SUFFIX",
    "LeftOut",
    "Listed",
    "ParquetShard",
    "SampleShard",
    "ShardReader",
    "SourceRow",
    "add_up",
    "list_shards",
    "list_source",
    "open_head",
    "open_local",
    "open_shard",
]
