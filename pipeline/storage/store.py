"""The storage interface of an output: whole files, exclusive creation, listings."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pipeline.errors import StoreError


class WriteResult(StrEnum):
    """The result of a put-if-absent, or of a replacement."""

    CREATED = "created"
    REPLACED = "replaced"
    OURS = "ours"
    """It exists with our bytes: an earlier try of this write arrived and its answer was lost."""
    EXISTS = "exists"
    """Another write made it; of a replacement: another was faster."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a listing."""

    path: str
    """Relative to the store's root."""
    size: int
    """Bytes."""
    modified_s: float
    """When it was last written, by the store's clock: seconds since the epoch."""
    linked: bool = False
    """On a disk: the file, or a folder between it and the store's root, is a symbolic link."""


class Store(Protocol):
    """A folder of whole files. Paths are relative to its URL, POSIX, see `checked`.

    Pickles, and opens its client once per process, so it works with fork, spawn and Ray. Unless a
    method names another error, it raises StoreError.
    """

    @property
    def url(self) -> str: ...

    def get(self, path: str) -> bytes:
        """Raise FileNotFoundError when there is no such file."""
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write a file, or replace it: whole or not at all."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a file that must not exist yet; of concurrent calls exactly one succeeds.

        Use `put_if_absent`, which handles the errors.

        Raises:
            FileExistsError: it exists. It may be our own: clients retry inside.
            StoreError: refused; nothing was written.
            OSError: no clear answer; whether it was written is unknown.
        """
        ...

    def get_versioned(self, path: str) -> tuple[bytes, str]:
        """Like `get`, with the version that `replace` needs."""
        ...

    def replace(self, path: str, data: bytes, version: str) -> None:
        """Replace a file that is still of this version; of concurrent calls exactly one succeeds.

        A reader finds the old file or the new one, whole. Use `replace_if`, which handles the errors.

        Raises:
            FileExistsError: it is of another version. It may be our own: clients retry inside.
            StoreError: refused, or the file is gone; nothing was written.
            OSError: no clear answer; whether it was written is unknown.
        """
        ...

    def list(self, folder: str) -> Iterator[Entry]:
        """Yield every file below `folder` ("" is all), in no promised order; none when it is absent."""
        ...

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files; absent files are not an error. Nothing is removed through a link to a folder."""
        ...

    def exists(self, path: str) -> bool: ...


def checked(path: str) -> str:
    """Return the path if it means the same file on every store.

    Raises:
        StoreError: it is absolute, has an empty segment, `.` or `..`, a NUL, or no UTF-8 form.
    """
    wrong = {"", ".", ".."}.intersection(path.split("/"))
    if wrong or "\0" in path or not _is_utf8(path):
        raise StoreError(
            f"{path!r}: not a path inside an output; allowed: relative, '/' between names, "
            "no empty name, no '.' or '..', no NUL, valid Unicode. Rename the shard"
        )
    # s3fs cuts a key there, taking it for a version id, even with version_aware=False (2026.9.0, split_path).
    if "?versionId=" in path:
        raise StoreError(f"{path!r}: holds '?versionId=', which S3 clients take for a version. Rename the shard")
    return path


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
