"""Reads the committed files of an output, one in memory at a time, in the order of their shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.ledger.layout import CAPTIONS, shard_of_committed
from pipeline.storage import Store
from pipeline.storage.parquet import iter_parquet
from schemas.caption_row import CAPTION_ROW

BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """A committed file, whole."""

    url: str
    shard: str
    modified_s: float
    """When it was committed, or replaced by a retry: seconds since the epoch."""
    data: bytes

    def batches(self, columns: Sequence[str] = CAPTION_ROW.names) -> Iterator[pa.Table]:
        """Yield its caption rows, `BATCH_ROWS` at a time.

        Raises:
            StoreError: the file is damaged, or its columns are not those of a caption row.
        """
        try:
            yield from iter_parquet(self.data, CAPTION_ROW, columns, BATCH_ROWS)
        except ValueError as err:
            raise StoreError(f"{self.url}: {err}; restore it, or run `joyfleet verify`") from err


def committed_files(store: Store) -> Iterator[CommittedFile]:
    """Yield them; a file is below 100 MB."""
    entries = {shard: entry for entry in store.list(CAPTIONS) if (shard := shard_of_committed(entry.path))}
    for shard, entry in sorted(entries.items()):
        yield CommittedFile(f"{store.url}/{entry.path}", shard, entry.modified_s, store.get(entry.path))
