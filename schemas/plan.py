"""The plan of an output: its shards, with their sizes and etags at the time of planning."""

from enum import StrEnum

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


class PlanKey(StrEnum):
    """Keys in the footer of a generation after the first, values UTF-8, beside SCHEMA_VERSION and ATTEMPT."""

    GENERATION = "joyfleet.generation"
    """Its number, from 1. `plan.parquet`, generation 0, has none."""
    PREDECESSOR = "joyfleet.predecessor"
    """Hex SHA-256 of the file of the generation before."""
    SELECTION = "joyfleet.selection"
    """Absent where the selection stays as it was. JSON object: `selection`, the keys of `source` that select rows from
    this generation on, and `end_rows`, by shard the row from which on its rows are beyond `source.limit`. Releases that
    do not know such generations refuse the plan: they would ask other rows than it says."""
