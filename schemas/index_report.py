"""The tables that `joyfleet report` writes about an index to report/index/."""

import pyarrow as pa

from schemas.field import field

INDEX_FORMATS: pa.Schema = pa.schema(
    [
        field("format", pa.string(), "Pillow's name; null where the header cannot be read", nullable=True),
        field("images", pa.int64(), "rows of the index"),
        field("bytes", pa.int64(), "of the encoded images"),
    ]
)

INDEX_REASONS: pa.Schema = pa.schema(
    [
        field("reason", pa.string(), "why images cannot be read, as in the index"),
        field("images", pa.int64(), "rows of the index"),
    ]
)

INDEX_HISTOGRAMS: pa.Schema = pa.schema(
    [
        field(
            "name", pa.string(), "what was measured: long_side, short_side (px), aspect_ratio (width / height), bytes"
        ),
        field("start", pa.float64(), "smallest value of the bin; bins are equally wide on a logarithmic scale"),
        field("end", pa.float64(), "first value behind the bin"),
        field("images", pa.int64(), "rows of the index with such a value; empty bins have no row"),
    ]
)

INDEX_COPIES: pa.Schema = pa.schema(
    [
        field("by", pa.string(), "what makes images of a cluster equal: sha256, or phash"),
        field("distance", pa.int32(), "bits in which hashes of a cluster may differ from the leader's; 0 for sha256"),
        field("images", pa.int64(), "rows of the index with such a hash"),
        field("clusters", pa.int64(), "clusters of at least two images"),
        field("members", pa.int64(), "images in them"),
        field("copies", pa.int64(), "members without the first of each cluster: requests that are saved"),
    ]
)
