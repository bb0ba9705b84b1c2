"""What a Parquet file of the output says about itself, in the key-value metadata of its footer."""

from enum import StrEnum


class FooterKey(StrEnum):
    """Keys of the footer, values UTF-8. All but the last three stand in every file of captions/ and staging/."""

    SCHEMA_VERSION = "joyfleet.schema_version"
    ATTEMPT = "joyfleet.attempt"
    """uuid4 hex of the one write that made this file: two files with equal bytes are the same write."""
    RECIPE = "joyfleet.recipe"
    """Fingerprint."""
    SHARD = "joyfleet.shard"
    """Path relative to the source's root."""
    SIZE = "joyfleet.size"
    """Bytes of the source shard."""
    ETAG = "joyfleet.etag"
    """Of the source shard, as in the plan."""
    NUM_IMAGES = "joyfleet.num_images"
    """Rows of the source shard."""
    SLOTS = "joyfleet.slots"
    """JSON array of names, in the order of the file's rows."""
    VERSIONS = "joyfleet.versions"
    """JSON object: program to version."""
    STATUSES = "joyfleet.statuses"
    """captions/ only. JSON object: status to number of caption rows."""
    CAPTIONS_SHA256 = "joyfleet.captions_sha256"
    """captions/ only, absent from files of earlier versions. Hex SHA-256 of the caption rows, see `DIGESTED`."""
    ROWS = "joyfleet.rows"
    """staging/ only. JSON array of [first row, number of rows]: the images that the fragment covers."""


DIGESTED = (
    *("row", "slot", "key", "image_sha256", "prompt", "system", "seed"),
    *("status", "reason", "caption", "rejected_text"),
)
"""Columns in the digest of the caption rows: which image was asked what, and what came of it.

The digest says nothing of how Parquet stores the rows, so that any tool can take it from any copy of them. SHA-256
over the rows, ordered by `row`, then by the slot's place in SLOTS; of each row these columns in this order; of each
value `<length>:<bytes>,` (a netstring: the length in bytes as decimal digits), where the bytes are UTF-8 text or the
decimal digits of an integer, and `-,` for null. It tells damage and confusion, not malice: whoever can write the file
can write the digest too.
"""
