"""The committed files of an output, one in memory at a time, in the order of their shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.layout import CAPTIONS, shard_of_committed
from pipeline.storage import Store


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """One of them, opened."""

    shard: str
    modified_s: float
    """When it was committed, or replaced by a retry: seconds since the epoch."""
    file: pq.ParquetFile


def committed_files(store: Store) -> Iterator[CommittedFile]:
    """Yield them; a file is below 100 MB."""
    entries = {shard: entry for entry in store.list(CAPTIONS) if (shard := shard_of_committed(entry.path))}
    for shard, entry in sorted(entries.items()):
        data = pa.BufferReader(store.get(entry.path))
        yield CommittedFile(shard, entry.modified_s, pq.ParquetFile(data, page_checksum_verification=True))
