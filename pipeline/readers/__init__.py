"""Shards of any store become source rows, each image exactly once, in an order that never changes."""

from pipeline.readers.head import open_head
from pipeline.readers.open import open_shard
from pipeline.readers.parquet import ParquetShard
from pipeline.readers.row import JSON, LeftOut, OpenShard, SourceRow, add_up
from pipeline.readers.samples import SampleShard
from pipeline.readers.source import STATS_SUFFIX, Listed, list_shards, list_source
from pipeline.readers.transport import open_local

__all__ = [
    "JSON",
    "STATS_SUFFIX",
    "LeftOut",
    "Listed",
    "OpenShard",
    "ParquetShard",
    "SampleShard",
    "SourceRow",
    "add_up",
    "list_shards",
    "list_source",
    "open_head",
    "open_local",
    "open_shard",
]
