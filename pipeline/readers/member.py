"""A file inside a shard, whatever kind of shard it is."""

from typing import NamedTuple


class Member(NamedTuple):
    """A file of a tar, a zip or a folder."""

    name: str
    """Valid UTF-8; other bytes as backslash escapes, so that different names stay different."""
    offset: int
    """Where its reader finds it: the first byte of its data in a tar, its number among the files of a zip or folder."""
    size: int
    """Bytes, unpacked."""
    fault: str | None = None
    """Why it has no bytes here, if so: a link to a file that the shard does not hold."""
