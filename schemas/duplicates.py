"""Followers: rows that are not captioned, since an equal or similar image, their leader, is."""

import pyarrow as pa

from schemas.field import field

CLUSTER: pa.Schema = pa.schema(
    [
        field("item", pa.int64(), "number of the row in the order in which leaders are chosen"),
        field("leader", pa.int64(), "number of its leader"),
        field("distance", pa.int32(), "bits in which their perceptual hashes differ; 0 for equal images"),
        field("cluster_size", pa.int64(), "rows of the cluster, the leader included"),
    ]
)
"""The followers of all clusters, as `pipeline.index.clusters` finds them."""

FOLLOWER: pa.Schema = pa.schema(
    [
        field("shard", pa.string(), "path of the source shard"),
        field("row", pa.int64(), "number of the image in its shard"),
        field("leader_shard", pa.string(), "path of the leader's shard"),
        field("leader_row", pa.int64(), "number of the leader in its shard"),
        field("distance", pa.int32(), "bits in which their perceptual hashes differ; 0 for equal images"),
        field("cluster_size", pa.int64(), "rows of the cluster, the leader included"),
    ]
)
"""A file of `duplicates/`: the followers of some shards, ordered by shard and row."""
