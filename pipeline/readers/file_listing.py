"""Lists the files below a folder, and their sizes and etags.

A listing of a store has sizes and etags. A local folder of a million images takes a second to walk and another four
to stat each file, so the walk returns only names, and only files that are needed are statted.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ConfigError
from pipeline.readers.transport import is_local, is_s3, not_regular, store_etag


class FileStat(NamedTuple):
    """Size and etag of a file."""

    size: int
    """Bytes."""
    etag: str
    """The store's etag, or `mtime-<ns>` where it has none (local files)."""


Info = dict[str, Any] | FileStat
"""What fsspec knows of a file, empty for a local file that was not statted yet; or all that is needed of it."""

# Where other file systems of fsspec than those of S3 and GCS put what changes with the content; then times.
ETAG_FIELDS = (
    *("content_md5", "md5Hash", "blob_id", "generation", "checksum"),
    *("LastModified", "last_modified", "mtime", "updated", "created"),
)


class NotRegular(ConfigError):
    """A local file that is a pipe, a device or the like."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(path, kind)
        self.kind = kind
        self._path = path

    def __str__(self) -> str:
        return f"source {self._path}: {self.kind}, not a regular file; remove it, or the link to it"


def files_below(fs: Any, folder: str) -> dict[str, Info]:  # noqa: ANN401 - fsspec has no types
    """All files below a folder by path; links to folders are not followed."""
    if is_s3(fs):
        return _objects_below(fs, folder)
    if not is_local(fs):
        files: dict[str, dict[str, Any]] = fs.find(folder, detail=True)
        return {path: info for path, info in files.items() if info["type"] != "directory"}
    return {os.path.join(parent, name): {} for parent, _, names in os.walk(folder) for name in names}  # noqa: PTH118


def _objects_below(fs: Any, folder: str) -> dict[str, Info]:  # noqa: ANN401 - fsspec has no types
    """The same of S3, with several requests at a time, and with little memory: a source may have a million shards."""
    from pipeline.storage.s3_listing import list_keys  # noqa: PLC0415 - only for S3

    bucket, _, key = folder.rstrip("/").partition("/")
    listed = list_keys(
        lambda **request: fs.call_s3("list_objects_v2", Bucket=bucket, **{**request, **fs.req_kw}),
        f"{key}/" if key else "",
        lambda item: (f"{bucket}/{item['Key']}", _info_of(item)),
    )
    return dict(listed)


def _info_of(item: Mapping[str, Any]) -> Info:
    etag = store_etag(item)
    return FileStat(item["Size"], etag) if etag else {**item, "size": item["Size"]}


def stat_file(fs: Any, path: str, info: Info) -> FileStat:  # noqa: ANN401 - fsspec has no types
    """Return size and etag of a listed file.

    Raises:
        ConfigError: a dangling link, or the store does not return sizes.
        NotRegular: a local file that is not a regular one.
    """
    if isinstance(info, FileStat):
        return info
    if is_local(fs):
        # fsspec reports seconds as a float, and of a link instead of its target.
        try:
            stat = Path(path).stat()
        except OSError as err:
            raise ConfigError(f"source {path}: {err.strerror}; remove the link or restore its target") from err
        kind = not_regular(stat.st_mode)
        if kind:
            raise NotRegular(path, kind)
        return FileStat(stat.st_size, f"mtime-{stat.st_mtime_ns}")
    if info.get("size") is None:
        raise ConfigError(f"source {path}: the store does not return its size; copy the shards to S3, GCS or a disk")
    size = int(info["size"])
    other = next((str(info[name]).strip('"') for name in ETAG_FIELDS if info.get(name)), f"size-{size}")
    return FileStat(size, store_etag(info) or other)
