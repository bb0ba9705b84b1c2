"""The plan of an output: its shards, with their sizes and etags at the time of planning."""

import pyarrow as pa

from schemas.field import field

PLAN: pa.Schema = pa.schema(
    [
        field("shard", pa.string(), "path relative to the source's root"),
        field("url", pa.string(), "full URL of the shard"),
        field("size", pa.int64(), "bytes"),
        field("etag", pa.string(), "the store's etag, or `mtime-<ns>` where it has none (local files)"),
    ]
)
