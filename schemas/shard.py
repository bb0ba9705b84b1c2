"""A source shard as the plan knows it: where it is, and what it looked like when it was listed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar or Parquet file of the source."""

    path: str
    """Relative to the source's root, POSIX; the shard's name everywhere in the output."""
    url: str
    """Where to read it now. No part of its identity: a bucket may be mounted elsewhere tomorrow."""
    size: int
    """Bytes."""
    etag: str
    """The store's etag, or `mtime-<ns>` where it has none (local files)."""
