"""What a Parquet file of the output says about itself, in the key-value metadata of its footer."""

from enum import StrEnum


class FooterKey(StrEnum):
    """Keys of the footer, values UTF-8. All but the last two stand in every file of captions/ and staging/."""

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
    ROWS = "joyfleet.rows"
    """staging/ only. JSON array of [first row, number of rows]: the images that the fragment covers."""
