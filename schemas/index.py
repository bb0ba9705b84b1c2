"""The index row of `index/**/*.parquet`: one row per image of a source, with the same identity as its caption rows.

Row identity is (shard, row). `key` is data and may repeat. Each file holds the rows of one shard, in row order.
"""

from enum import StrEnum

import pyarrow as pa

from schemas.field import field

INDEX_VERSION = "1"
"""Changes with the name, type, unit or meaning of a field; footers hold it and readers refuse other versions.

A nullable column may be added without a new version: in older files it is null, and older releases ignore it.
"""


class Hash(StrEnum):
    """What `--hash` may ask for."""

    SHA256 = "sha256"
    """Of the encoded bytes; nothing is decoded."""
    PHASH = "phash"
    """Perceptual hash of the pixels, which are decoded for it."""


INDEX_SCHEMA: pa.Schema = pa.schema(
    [
        field("shard", pa.string(), "path of the source shard, relative to the source's root"),
        field("row", pa.int64(), "number of the image in its shard, from 0, in the shard's order"),
        field("key", pa.string(), "name of the sample: tar key, or the key column; may repeat"),
        field(
            "sha256",
            pa.string(),
            "64 hex digits: digest of the encoded image; null if not asked for and without bytes",
            nullable=True,
        ),
        field(
            "phash",
            pa.uint64(),
            "perceptual hash of 64 bits: similar images differ in few bits; null if not asked for, and if the image "
            "does not decode",
            nullable=True,
        ),
        field("width", pa.int32(), "px, after EXIF rotation; null if the header cannot be read", nullable=True),
        field("height", pa.int32(), "px, after EXIF rotation; null if the header cannot be read", nullable=True),
        field("format", pa.string(), "Pillow's name of the format, such as JPEG", nullable=True),
        field("bytes", pa.int64(), "length of the encoded image; null without bytes", nullable=True),
        field("metadata", pa.string(), "JSON object: the fields of the source row that the index was asked to keep"),
        field("reason", pa.string(), "why the image cannot be read, a Reason; null if it can", nullable=True),
        field("error", pa.string(), "details of the reason, for people; null without a reason", nullable=True),
    ]
)


class IndexKey(StrEnum):
    """Keys in the footer of a file of index/, values UTF-8."""

    INDEX_VERSION = "joyfleet.index_version"
    ATTEMPT = "joyfleet.attempt"
    """uuid4 hex of the one write that made this file."""
    FINGERPRINT = "joyfleet.index_fingerprint"
    """Of everything that can change a row: hashes, metadata fields, reading and limits of images."""
    SHARD = "joyfleet.shard"
    """Path relative to the source's root."""
    SIZE = "joyfleet.size"
    """Bytes of the source shard when it was indexed."""
    ETAG = "joyfleet.etag"
    """Of the source shard when it was indexed. An index is stale for a shard with another size or etag."""
    ROWS_SHA256 = "joyfleet.index_sha256"
    """Hex SHA-256 of the rows in their order, in the form of `schemas.footer.DIGESTED`, over `INDEX_DIGESTED`."""


INDEX_DIGESTED = (
    *("shard", "row", "key", "sha256", "phash", "width", "height"),
    *("format", "bytes", "metadata", "reason", "error"),
)
"""Columns in the digest of the rows."""
