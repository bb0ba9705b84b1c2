"""What the stages pass on: batches of images of one shard downstream, receipts upstream to the driver.

A batch is one Ray row with images of one shard. Being one row, it can be neither split nor merged with images of
another shard, so a retried task emits exactly what it emitted before.
"""

from enum import StrEnum

import pyarrow as pa

from schemas.field import field


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
    DRAINED = "drained"
    """No images, or none that were captioned: the run is stopping."""
    FATAL = "fatal"
    """No images: the run ends with `error`. As data, because Ray Data rewrites the text of exceptions."""


_OF_THE_SHARD = field("num_images", pa.int64(), "of the whole shard")
_TRACEBACK = field("traceback", pa.string(), "UNREADABLE: of a bug in JoyFleet; else null", nullable=True)
_ERROR = field("error", pa.binary(), "FATAL: a pickled PipelineError", nullable=True)

IMAGE: pa.StructType = pa.struct(
    [
        field("row", pa.int64(), "number of the image in its shard, from 0"),
        field("key", pa.string(), "name of the image in the source; may repeat"),
        field("image_sha256", pa.string(), "as in a caption row", nullable=True),
        field("image_bytes", pa.int64(), "as in a caption row", nullable=True),
        field("image_format", pa.string(), "as in a caption row", nullable=True),
        field("width", pa.int32(), "px of the original, after EXIF rotation", nullable=True),
        field("height", pa.int32(), "px of the original, after EXIF rotation", nullable=True),
        field("pixels_width", pa.int32(), "px, of its pixels in the batch", nullable=True),
        field("pixels_height", pa.int32(), "px, of its pixels in the batch", nullable=True),
        field(
            "source",
            pa.string(),
            "JSON object: the metadata fields of the source row; `captions` holds the captions of a parent by slot",
        ),
        field("parent_recipe", pa.string(), "recipe of the output that is the source; else null", nullable=True),
        field("reason", pa.string(), "why no request is sent for it, a Reason", nullable=True),
        field("message", pa.string(), "details of the reason, for people", nullable=True),
        field("duplicate_of", pa.string(), "as in a caption row", nullable=True),
        field(
            "existing",
            pa.string(),
            "JSON object: slot to the text that the source has for it, or to null where such a row is skipped; null "
            "without any",
            nullable=True,
        ),
    ]
)
"""One image of a batch. It has pixels, and so `pixels_width`, exactly when a request is sent for it and images are
read."""

BATCH: pa.Schema = pa.schema(
    [
        field("kind", pa.string(), "a BatchKind"),
        field("shard", pa.string(), "path of the shard"),
        field("size", pa.int64(), "bytes of the shard, as planned"),
        field("etag", pa.string(), "etag of the shard, as planned"),
        _OF_THE_SHARD,
        field("images", pa.list_(IMAGE), "in row order"),
        field(
            "pixels",
            pa.large_binary(),
            "uint8 RGB of each image with a pixels_width, (pixels_height, pixels_width, 3), in order",
        ),
        field(
            "taken_over",
            pa.large_binary(),
            "caption rows of an earlier output, which need no request, as an Arrow IPC stream; null without any",
            nullable=True,
        ),
        field("fragment", pa.string(), "RESUMED: path of the fragment in the output", nullable=True),
        field("rows", pa.list_(pa.int64()), "RESUMED: rows that it covers"),
        field("message", pa.string(), "UNREADABLE: what was found", nullable=True),
        _TRACEBACK,
        _ERROR,
    ]
)

RECEIPT: pa.Schema = pa.schema(
    [
        field("kind", pa.string(), "BatchKind of the batch"),
        field("shard", pa.string(), "path of the shard"),
        _OF_THE_SHARD,
        field("fragment", pa.string(), "path of the fragment in the output; null if none", nullable=True),
        field("rows", pa.list_(pa.int64()), "rows that the fragment covers"),
        field("statuses", pa.map_(pa.string(), pa.int64()), "number of caption rows of the fragment by status"),
        field("num_taken_over", pa.int64(), "caption rows of the fragment that come from an earlier output"),
        field("num_skipped", pa.int64(), "images of the fragment that the selection skips"),
        field("message", pa.string(), "UNREADABLE: what was found", nullable=True),
        _TRACEBACK,
        _ERROR,
    ]
)

RECEIPTS: pa.Schema = pa.schema([field("receipts", pa.list_(pa.struct(list(RECEIPT))), "of one batch, one a fragment")])
"""What a replica returns for a batch: one row, so that a batch that is repeated returns as many rows as before."""
