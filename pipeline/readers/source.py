"""Which shards a source has, found by listing alone: 30,000 shards are 30 LIST calls and no request per shard."""

import glob
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.readers.transport import is_local, store_errors
from schemas.shard import Shard

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".parquet")
URL_LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

# Where fsspec's file systems put what changes with the content: S3, GCS, Azure, Hugging Face, then times.
ETAG_FIELDS = (
    *("ETag", "etag", "content_md5", "md5Hash", "blob_id", "generation", "checksum"),
    *("LastModified", "last_modified", "mtime", "updated", "created"),
)


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one entry of `source.urls` stands for."""

    root: str
    files: dict[str, dict[str, Any]]


def list_shards(source: SourceConfig, suffixes: tuple[str, ...] = SHARD_SUFFIXES) -> list[Shard]:
    """List the shards of a source, or its files of other suffixes, sorted by path.

    The root to which paths are relative is the folder given, the part of a glob before its first
    wildcard, or the folder of a single file; of several entries, the longest folder they share.
    Side files in folders and globs are ignored, a shard that two entries name counts once.

    Raises:
        ConfigError: an entry that cannot be read, names no shard, or names no kind of shard.
    """
    fs = _file_system(source.urls)
    fs.invalidate_cache()  # a listing of this process's past is not the source
    listings = [_list_entry(fs, url, suffixes) for url in source.urls]
    root = _common_folder([listing.root for listing in listings])
    files = {path: info for listing in listings for path, info in listing.files.items()}
    return sorted((_shard(fs, path, info, root) for path, info in files.items()), key=lambda shard: shard.path)


def _file_system(urls: tuple[str, ...]) -> Any:  # noqa: ANN401 - fsspec has no types
    systems: dict[str, Any] = {}
    for url in urls:
        try:
            fs, _ = url_to_fs(url, **_options(url))
        except ImportError as err:
            raise ConfigError(f"source {url}: {err}; for S3 `pip install joyfleet[s3]`, for GCS joyfleet[gcs]") from err
        except ValueError as err:
            raise ConfigError(f"source {url}: {err}; allowed: local paths and the URLs of fsspec, as s3://") from err
        systems[type(fs).__name__] = fs
    if len(systems) > 1:
        raise ConfigError(f"source: {', '.join(urls)} are in {len(systems)} kinds of stores; one run reads from one")
    return next(iter(systems.values()))


def _options(url: str) -> dict[str, Any]:
    if not url.startswith(("s3://", "s3a://")):
        return {}
    from pipeline.storage.s3 import quick_session  # noqa: PLC0415 - an optional extra

    return {"session": quick_session(os.getpid())}


def _list_entry(fs: Any, url: str, suffixes: tuple[str, ...]) -> _Listing:  # noqa: ANN401 - fsspec has no types
    path = _strip(fs, url)
    try:
        listing = _find(fs, url, path, suffixes)
    except FileNotFoundError as err:
        raise ConfigError(f"source {url}: not found; give a folder, a glob or a shard that exists") from err
    except store_errors() as err:
        raise ConfigError(
            f"source {url}: cannot be listed ({type(err).__name__}: {err}); check the address and the credentials"
        ) from err
    if not listing.files:
        hint = "; braces are not a glob, use *" if "{" in url else ""
        raise ConfigError(f"source {url}: no shard found; allowed: {', '.join(suffixes)}{hint}")
    return listing


def _find(fs: Any, url: str, path: str, suffixes: tuple[str, ...]) -> _Listing:  # noqa: ANN401 - fsspec has no types
    if glob.has_magic(path) and not (is_local(fs) and os.path.lexists(path)):
        folder = path[: min(path.index(wild) for wild in "*?[" if wild in path)].rpartition("/")[0]
        return _Listing(folder, _only(fs.glob(path, detail=True), suffixes))
    info = fs.info(path)
    if info["type"] == "directory":
        return _Listing(path.rstrip("/"), _only(fs.find(path, detail=True), suffixes))
    _check_suffix(url, suffixes)
    return _Listing(path.rpartition("/")[0], {path: info})


def _strip(fs: Any, url: str) -> str:  # noqa: ANN401 - fsspec has no types
    if is_local(fs):
        return posixpath.normpath(str(fs._strip_protocol(url)))
    return str(fs._strip_protocol(url))


def _only(found: dict[str, dict[str, Any]], suffixes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {
        path: info for path, info in found.items() if info["type"] != "directory" and path.lower().endswith(suffixes)
    }


def _check_suffix(url: str, suffixes: tuple[str, ...]) -> None:
    if url.lower().endswith(suffixes):
        return
    if url.lower().endswith(URL_LIST_SUFFIXES):
        raise ConfigError(
            f"source {url}: a list of URLs, not of images; download it first with img2dataset "
            "(--output_format webdataset) and give the folder of its shards"
        )
    raise ConfigError(f"source {url}: not a shard; allowed: {', '.join(suffixes)}, or a folder or glob")


def _common_folder(roots: list[str]) -> str:
    if len(roots) == 1:
        return roots[0]
    shared: list[str] = []
    for parts in zip(*(root.split("/") for root in roots), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _shard(fs: Any, path: str, info: dict[str, Any], root: str) -> Shard:  # noqa: ANN401 - fsspec has no types
    url = path if is_local(fs) else str(fs.unstrip_protocol(path))
    relative = path[len(root) + 1 :] if root else path
    if posixpath.normpath(relative) != relative or relative.startswith(("/", "../")):
        raise ConfigError(
            f"source {url}: path {relative!r} has an empty, `.` or `..` part and cannot name a shard; rename it"
        )
    if info.get("size") is None:
        raise ConfigError(f"source {url}: the store does not tell its size; copy the shards to S3, GCS or a disk")
    return Shard(relative, url, int(info["size"]), _etag(fs, path, info))


def _etag(fs: Any, path: str, info: dict[str, Any]) -> str:  # noqa: ANN401 - fsspec has no types
    if is_local(fs):
        # fsspec reports seconds as a float, and of a link instead of its target.
        try:
            return f"mtime-{Path(path).stat().st_mtime_ns}"
        except OSError as err:
            raise ConfigError(f"source {path}: {err.strerror}; remove the link or restore its target") from err
    for name in ETAG_FIELDS:
        if info.get(name):
            return str(info[name]).strip('"')
    return f"size-{info['size']}"
