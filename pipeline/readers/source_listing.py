"""Lists the shards of a source: 30,000 shards are 30 LIST calls, and no request per shard."""

import glob
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fsspec.core import url_to_fs

from pipeline.config import SourceConfig
from pipeline.errors import ConfigError
from pipeline.readers.file_listing import Info, files_below, stat_file
from pipeline.readers.folder import folder_shards
from pipeline.readers.formats import FORMATS, format_of_path, shard_suffixes
from pipeline.readers.grouping import named_as_image, split_name
from pipeline.readers.outputs import without_outputs
from pipeline.readers.parent import list_parent
from pipeline.readers.splits import in_split, split_of
from pipeline.readers.transport import is_local, list_with_tries, store_errors
from schemas.shard import Shard

URL_LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".csv.gz", ".jsonl.gz")
STATS_SUFFIX = "_stats.json"
"""img2dataset's count of one shard."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The listing of a source."""

    shards: list[Shard]
    """Sorted by path."""
    remarks: tuple[str, ...]
    """Files that are not read, for people."""
    stats: tuple[str, ...]
    """URLs of img2dataset's counts."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """One entry of `source.urls`: files that are shards, or a folder of loose images."""

    root: str
    files: dict[str, Info]
    loose: bool = False
    remarks: tuple[str, ...] = ()
    stats: tuple[str, ...] = ()


def list_shards(source: SourceConfig, suffixes: tuple[str, ...] | None = None) -> list[Shard]:
    """List the shards of a source, or its files with other suffixes, sorted by path.

    Paths are relative to the given folder, to the part of a glob before its first wildcard, or to the folder of a
    single file; with several entries, to the longest folder that they share. Side files in folders and globs are
    ignored, a shard that two entries name counts once. A folder without any shard is a folder of images, see
    `pipeline.readers.folder`.

    Raises:
        ConfigError: an entry cannot be read, has no shard, or is a file of an unknown format.
        StoreError: the store fails in all tries.
    """
    return list_source(source, suffixes).shards


def list_source(source: SourceConfig, suffixes: tuple[str, ...] | None = None) -> Listed:
    """Like `list_shards`, with everything else that the listing shows."""
    if source.captions is not None:
        shards, remarks = list_parent(source, list_shards)
        return Listed(shards, tuple(remarks), ())
    fs = _file_system(source.urls)
    fs.invalidate_cache()  # an earlier listing of this process may be outdated
    listings = [_list_entry(fs, url, suffixes) for url in source.urls]
    _refuse_twice([listing.root for listing in listings if listing.loose])
    root = _common_folder([listing.root for listing in listings])
    left_out: list[str] = []
    shards = {shard.path: shard for listing in listings for shard in _shards(fs, listing, root, source, left_out)}
    if not shards:
        raise ConfigError(_no_such_split(source, listings))
    if source.texts and suffixes is None:
        _refuse_without_columns(shards)
    return Listed(
        sorted(shards.values(), key=lambda shard: shard.path),
        (*(remark for listing in listings for remark in listing.remarks), *left_out),
        tuple(path for listing in listings for path in listing.stats),
    )


def _file_system(urls: tuple[str, ...]) -> Any:  # noqa: ANN401 - fsspec has no types
    systems: dict[str, Any] = {}
    for url in urls:
        try:
            fs, _ = url_to_fs(url, **_options(url))
        except ImportError as err:
            raise ConfigError(
                f"source {url}: {err}; for S3 `pip install joyfleet[s3]`, for GCS joyfleet[gcs], for hf:// joyfleet[hf]"
            ) from err
        except ValueError as err:
            raise ConfigError(f"source {url}: {err}; allowed: local paths and the URLs of fsspec, as s3://") from err
        systems[type(fs).__name__] = fs
    if len(systems) > 1:
        raise ConfigError(f"source: {', '.join(urls)} are in {len(systems)} kinds of stores; allowed: one kind per run")
    return next(iter(systems.values()))


def _options(url: str) -> dict[str, Any]:
    if not url.startswith(("s3://", "s3a://")):
        return {}
    from pipeline.storage.s3 import quick_session  # noqa: PLC0415 - an optional extra

    return {"session": quick_session()}


def _list_entry(fs: Any, url: str, suffixes: tuple[str, ...] | None) -> _Listing:  # noqa: ANN401 - fsspec has no types
    path = _strip(fs, url)
    try:
        return list_with_tries(f"source {url}", lambda: _list(fs, url, path, suffixes))
    except FileNotFoundError as err:
        raise ConfigError(f"source {url}: not found; give a folder, a glob or a shard that exists") from err
    except store_errors() as err:
        raise ConfigError(
            f"source {url}: cannot be listed ({type(err).__name__}: {err}); check the address and the credentials"
        ) from err


def _list(fs: Any, url: str, path: str, suffixes: tuple[str, ...] | None) -> _Listing:  # noqa: ANN401 - fsspec has no types
    if glob.has_magic(path) and not (is_local(fs) and os.path.lexists(path)):
        folder = path[: min(path.index(wild) for wild in "*?[" if wild in path)].rpartition("/")[0]
        matches: dict[str, dict[str, Any]] = fs.glob(path, detail=True)
        files: dict[str, Info] = {path: info for path, info in matches.items() if info["type"] != "directory"}
        return _without_outputs(fs, folder, files, url, suffixes)
    info = fs.info(path)
    if info["type"] == "directory":
        return _without_outputs(fs, path.rstrip("/"), files_below(fs, path), url, suffixes, loose=suffixes is None)
    if url.lower().endswith(suffixes or shard_suffixes()):
        return _Listing(path.rpartition("/")[0], {path: info})
    if url.lower().endswith(URL_LIST_SUFFIXES):
        raise ConfigError(f"source {url}: {FOR_IMG2DATASET}")
    allowed = ", ".join(suffixes or shard_suffixes())
    raise ConfigError(f"source {url}: not a shard; allowed: {allowed}, or a folder or glob")


def _without_outputs(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    root: str,
    files: dict[str, Info],
    url: str,
    suffixes: tuple[str, ...] | None,
    *,
    loose: bool = False,
) -> _Listing:
    """Like `_classify`, without the files of outputs of JoyFleet."""
    if suffixes is not None:  # a caller that lists tables may want those of an output
        return _classify(root, files, url, suffixes, loose=loose)
    others, remarks = without_outputs(fs, url, files)
    listing = _classify(root, others, url, suffixes, loose=loose)
    return replace(listing, remarks=(*listing.remarks, *remarks))


FOR_IMG2DATASET = (
    "a list of URLs, not of images; download it first with img2dataset (--output_format webdataset) and give the "
    "folder of its shards"
)


def _classify(
    root: str, files: dict[str, Info], url: str, suffixes: tuple[str, ...] | None, *, loose: bool
) -> _Listing:
    """Separate shards from other files; with `loose`, images are a source if there is no shard.

    Raises:
        ConfigError: none of the files can be read.
    """
    wanted = suffixes or shard_suffixes()
    shards = {path: info for path, info in files.items() if path.lower().endswith(wanted)}
    stats = tuple(path for path in files if path.endswith(STATS_SUFFIX))
    # A caller that lists other suffixes looks for tables, and img2dataset's records are tables.
    records = _records(files, stats) & shards.keys() if suffixes is None else set[str]()
    if records:
        shards = {path: info for path, info in shards.items() if path not in records}
    loose_images = (path for path in files if named_as_image(path) and split_name(path.rpartition("/")[2]) is not None)
    images = sum(1 for _ in loose_images) if suffixes is None else 0
    tables = {path for path in shards if path.rpartition("/")[2].lower() == "metadata.parquet"}
    remarks = [f"{url}: {len(records):,} Parquet files are img2dataset's records, not read"] if records else []
    if loose and images and len(tables) == len(shards):
        remarks += [f"{url}: {path.removeprefix(root + '/')} is not read" for path in sorted(tables)]
        return _Listing(root, files, True, tuple(remarks), stats)
    if not shards:
        raise ConfigError(_nothing(url, files, images, suffixes))
    if images:
        remarks.append(f"{url}: {images:,} loose images beside {len(shards):,} shards are not read")
    return _Listing(root, shards, False, tuple(remarks), stats)


def _records(files: Mapping[str, Info], stats: tuple[str, ...]) -> set[str]:
    """The tables that img2dataset writes beside a tar or a folder of files: the rows of the shard, without images."""
    folders = {path.rpartition("/")[0] for path in files}
    stems = {path.removesuffix(STATS_SUFFIX) for path in stats}
    return {f"{stem}.parquet" for stem in stems if f"{stem}.tar" in files or stem in folders} & files.keys()


def _nothing(url: str, files: Mapping[str, Info], images: int, suffixes: tuple[str, ...] | None) -> str:
    hint = "; braces are not a glob, use *" if "{" in url else ""
    if images:
        hint = f"; it has {images:,} loose images: give their folder, not a glob"
    elif any(path.lower().endswith(".arrow") for path in files):
        hint = "; .arrow files of `save_to_disk` are not read: write the data set with `to_parquet`"
    elif any(path.lower().endswith(URL_LIST_SUFFIXES[:2] + URL_LIST_SUFFIXES[3:]) for path in files):
        hint = f"; {FOR_IMG2DATASET.replace('a list of URLs, not of images;', 'if its tables list URLs,')}"
    folder = ", or a folder of images" if suffixes is None else ""
    return f"source {url}: no shard found; allowed: {', '.join(suffixes or shard_suffixes())}{folder}{hint}"


def _strip(fs: Any, url: str) -> str:  # noqa: ANN401 - fsspec has no types
    if is_local(fs):
        return posixpath.normpath(str(fs._strip_protocol(url)))
    return str(fs._strip_protocol(url))


def _refuse_twice(folders: list[str]) -> None:
    for folder in folders:
        inside = [other for other in folders if f"{other}/".startswith(f"{folder}/")]
        if len(inside) > 1:
            raise ConfigError(f"source: {' and '.join(inside)} overlap, so images would count twice; give one of them")


def _refuse_without_columns(shards: Mapping[str, Shard]) -> None:
    """Refuse a shard of `source.texts` whose format has no columns."""
    others = [shard for path, shard in shards.items() if not format_of_path(path).has_columns]
    if others:
        allowed = ", ".join(suffix for form in FORMATS.values() if form.has_columns for suffix in form.suffixes)
        raise ConfigError(
            f"source.texts: {len(others)} of {len(shards)} shards hold files, such as {others[0].url}; allowed: tables "
            f"({allowed})"
        )


def _no_such_split(source: SourceConfig, listings: list[_Listing]) -> str:
    names = {
        split_of(path.removeprefix(f"{listing.root}/"), by_folder=listing.loose)
        for listing in listings
        for path in listing.files
    }
    existing = ", ".join(sorted(name for name in names if name)) or "none"
    return (
        f"source {', '.join(source.urls)}: no shard of split {source.split!r}; found: {existing}; correct source.split"
    )


def _common_folder(roots: list[str]) -> str:
    if len(roots) == 1:
        return roots[0]
    shared: list[str] = []
    for parts in zip(*(root.split("/") for root in roots), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _shards(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    listing: _Listing,
    root: str,
    source: SourceConfig,
    remarks: list[str],
) -> Iterator[Shard]:
    if listing.loose:
        below = listing.root[len(root) + 1 :]
        shards, left_out = folder_shards(fs, listing.root, listing.files, source)
        remarks += [f"{listing.root}: {entry}" for entry in left_out]
        for shard in shards:
            yield Shard(f"{below}/{shard.path}" if below else shard.path, shard.url, shard.size, shard.etag)
        return
    for path, info in listing.files.items():
        relative = path[len(root) + 1 :] if root else path
        if in_split(path[len(listing.root) + 1 :], source.split):
            yield _shard(fs, path, info, relative)


def _shard(fs: Any, path: str, info: Info, relative: str) -> Shard:  # noqa: ANN401 - fsspec has no types
    url = path if is_local(fs) else str(fs.unstrip_protocol(path))
    if posixpath.normpath(relative) != relative or relative.startswith(("/", "../")):
        raise ConfigError(
            f"source {url}: path {relative!r} has an empty, `.` or `..` part and cannot name a shard; rename it"
        )
    stat = stat_file(fs, path, info)
    return Shard(relative, url, stat.size, stat.etag)
