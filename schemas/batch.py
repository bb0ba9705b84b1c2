"""What the stages pass on: batches of images of one shard downstream, receipts upstream to the driver.

A batch is one Ray row holding up to `engine.batch_images` images of one shard. Being one row,
it can be neither split nor merged with images of another shard, so a retried task emits exactly what
it emitted before.
"""

from enum import StrEnum

import pyarrow as pa


class BatchKind(StrEnum):
    """What a batch contains."""

    IMAGES = "images"
    """Images to caption; those that could not be decoded carry a reason instead of pixels."""
    RESUMED = "resumed"
    """No images: a valid fragment of an earlier run covers `rows`."""
    EMPTY = "empty"
    """No images: the shard has none."""
    UNREADABLE = "unreadable"
    """No images: the shard goes to quarantine for the reason in `message`."""
    COMMITTED = "committed"
    """No images: another run has committed the shard."""
    SKIPPED = "skipped"
    """No images, or none that were captioned: the run is stopping."""
    FATAL = "fatal"
    """No images: the run ends with `error`. As data, because Ray Data rewrites the text of exceptions."""


IMAGE: pa.StructType = pa.struct(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string()),
        pa.field("image_bytes", pa.int64()),
        pa.field("image_format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("pixels_width", pa.int32(), metadata={"doc": "px, of its pixels in the batch"}),
        pa.field("pixels_height", pa.int32(), metadata={"doc": "px, of its pixels in the batch"}),
        pa.field("source", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
    ]
)
"""One image of a batch. `reason` is null exactly when the image has its pixels in the batch."""

BATCH: pa.Schema = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False, metadata={"doc": "a BatchKind"}),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False, metadata={"doc": "bytes of the shard, as planned"}),
        pa.field("etag", pa.string(), nullable=False, metadata={"doc": "etag of the shard, as planned"}),
        pa.field("num_images", pa.int64(), nullable=False, metadata={"doc": "of the whole shard"}),
        pa.field("images", pa.list_(IMAGE), nullable=False),
        pa.field(
            "pixels",
            pa.large_binary(),
            nullable=False,
            metadata={"doc": "uint8 RGB of each image without reason, (pixels_height, pixels_width, 3), in order"},
        ),
        pa.field("fragment", pa.string(), metadata={"doc": "RESUMED: path of the fragment in the output"}),
        pa.field("rows", pa.list_(pa.int64()), nullable=False, metadata={"doc": "RESUMED: rows that it covers"}),
        pa.field("message", pa.string(), metadata={"doc": "UNREADABLE: what was found"}),
        pa.field("traceback", pa.string(), metadata={"doc": "UNREADABLE: of a bug in JoyFleet; else null"}),
        pa.field("error", pa.binary(), metadata={"doc": "FATAL: a pickled PipelineError"}),
    ]
)

RECEIPT: pa.Schema = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False, metadata={"doc": "BatchKind of the batch"}),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("num_images", pa.int64(), nullable=False, metadata={"doc": "of the whole shard"}),
        pa.field("fragment", pa.string(), metadata={"doc": "path of the fragment in the output; null if none"}),
        pa.field("rows", pa.list_(pa.int64()), nullable=False, metadata={"doc": "rows that the fragment covers"}),
        pa.field(
            "statuses",
            pa.map_(pa.string(), pa.int64()),
            nullable=False,
            metadata={"doc": "number of caption rows of the fragment by status"},
        ),
        pa.field("message", pa.string()),
        pa.field("traceback", pa.string(), metadata={"doc": "as in a batch"}),
        pa.field("error", pa.binary(), metadata={"doc": "FATAL: a pickled PipelineError"}),
    ]
)
