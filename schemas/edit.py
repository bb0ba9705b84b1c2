"""The edits file of `joyfleet amend`: one row per caption row that a person has changed, as Parquet or CSV."""

from enum import StrEnum

import pyarrow as pa

from schemas.field import field
from schemas.status import Status

EDIT: pa.Schema = pa.schema(
    [
        field("shard", pa.string(), "path of the source shard, as in the caption row"),
        field("row", pa.int64(), "number of the image in its shard, as in the caption row"),
        field("slot", pa.string(), "as in the caption row"),
        field("caption", pa.string(), "the new text; null or empty where status is rejected", nullable=True),
        field("editor", pa.string(), "who made the edit, as the caption row will say"),
        field("status", pa.string(), "an EditStatus; null or absent is ok", nullable=True),
    ]
)


class EditStatus(StrEnum):
    """What an edit makes of a row."""

    OK = Status.OK.value
    """`caption` is the row's text."""
    REJECTED = Status.REJECTED.value
    """The row's text is rejected, with the reason `editor`."""
