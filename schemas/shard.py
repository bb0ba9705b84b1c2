"""A source shard: its path, its URL, and its size and etag when it was listed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of the source, or a part of a folder of images."""

    path: str
    """Relative to the source's root, POSIX; the shard's name everywhere in the output."""
    url: str
    """Where to read it. Not part of its identity: the same bucket may have another URL later."""
    size: int
    """Bytes."""
    etag: str
    """The store's etag, or `mtime-<ns>` where it has none (local files). Of a committed file of an output:
    `<recipe>:<etag of the shard that it captions>`, which a retry or an edit of its rows does not change."""
    origin: "Shard | None" = None
    """Of a committed file of an output: the shard of the images. It is listed, not stored."""
