"""The plan of an output: its shards, with their sizes and etags at the time of planning."""

import pyarrow as pa

PLAN: pa.Schema = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False, metadata={"doc": "path relative to the source's root"}),
        pa.field("url", pa.string(), nullable=False, metadata={"doc": "full URL of the shard"}),
        pa.field("size", pa.int64(), nullable=False, metadata={"doc": "bytes"}),
        pa.field(
            "etag",
            pa.string(),
            nullable=False,
            metadata={"doc": "the store's etag, or `mtime-<ns>` where it has none (local files)"},
        ),
    ]
)
