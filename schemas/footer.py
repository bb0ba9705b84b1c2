"""The key-value metadata in the footer of every Parquet file of an output."""

from enum import StrEnum

PREFIX = "joyfleet."


class FooterKey(StrEnum):
    """Keys of the footer, values UTF-8. All but the last four are in every file of captions/ and staging/.

    A later release may add keys: this one ignores them, and `retry --rows` keeps them in the file that it writes. So
    the value of an added key must stay true when rows are replaced; one that depends on the rows needs a new
    SCHEMA_VERSION.
    """

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
    """Images of the source shard."""
    SLOTS = "joyfleet.slots"
    """JSON array of names, in the order of the file's rows."""
    VERSIONS = "joyfleet.versions"
    """JSON object: program to version."""
    STATUSES = "joyfleet.statuses"
    """captions/ only. JSON object: status to number of caption rows."""
    SKIPPED = "joyfleet.skipped"
    """captions/ only, absent without skipped rows. JSON object: condition to number of caption rows that it skipped."""
    CAPTIONS_SHA256 = "joyfleet.captions_sha256"
    """captions/ only, absent from files of earlier versions. Hex SHA-256 of the caption rows, see `DIGESTED`."""
    ROWS = "joyfleet.rows"
    """staging/ only. JSON array of [first row, number of rows]: the images that the fragment covers."""


DIGESTED = (
    *("row", "slot", "key", "image_sha256", "prompt", "system", "seed"),
    *("status", "reason", "caption", "rejected_text"),
)
"""Columns in the digest of the caption rows: the image, the prompt and the result.

The digest does not depend on how Parquet stores the rows, so any tool can compute it from any copy of them. It is
SHA-256 over the rows, ordered by `row`, then by the position of the slot in SLOTS; of each row these columns in this
order; of each value `<length>:<bytes>,` (a netstring: the length in bytes as decimal digits), where the bytes are
UTF-8 text or the decimal digits of an integer, and `-,` for null. It detects damage and mixed-up files, not malice:
whoever can write the file can write the digest too.
"""
