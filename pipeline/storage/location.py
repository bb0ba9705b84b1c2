"""Decides whether a URL is inside another, also through links, `..` and bind mounts, and by bucket and key."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ALIASES = {"s3a": "s3", "gcs": "gs", "local": "file"}
"""Schemes of fsspec that name the same store."""

MAGIC = "*?["


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or file of a disk or a store."""

    store: str
    """`file`, or scheme and bucket."""
    parts: tuple[str, ...]
    """Names from the root of the store down; local links are resolved."""

    def below(self, name: str) -> Place:
        return Place(self.store, (*self.parts, name))

    def path_from(self, outer: Place) -> tuple[str, ...] | None:
        """Return the names on the path from `outer` to this place, empty for the same place; None if it is outside."""
        if self.store != outer.store:
            return None
        if self.parts[: len(outer.parts)] == outer.parts:
            return self.parts[len(outer.parts) :]
        return self._same_folder(outer) if self.store == "file" else None

    def _same_folder(self, outer: Place) -> tuple[str, ...] | None:
        """Compare files instead of names: a disk may ignore case, or show one folder in two places."""
        wanted = _stat("/".join(outer.parts))
        for depth in range(len(self.parts), 0, -1):
            folder = _stat("/".join(self.parts[:depth]))
            if wanted and folder and os.path.samestat(wanted, folder):
                return self.parts[depth:]
        return None


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(f"/{path}").stat()
    except OSError:  # absent, or behind a folder that may not be entered: nothing to compare
        return None


def place_of(url: str) -> Place:
    """Return the place that a local path or a URL names; it need not exist."""
    scheme, separator, rest = url.partition("://")
    scheme = ALIASES.get(scheme.lower(), scheme.lower()) if separator else "file"
    if scheme == "file":
        path = os.path.expanduser((rest if separator else url).removeprefix("file:"))  # noqa: PTH111 - a URL's part
        return Place("file", _names(os.path.realpath(path)))
    bucket, _, key = rest.partition("/")
    return Place(f"{scheme}://{bucket}", _names(key))


def _names(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name)


def reaches(source_url: str, output: Place, own_folders: Iterable[str]) -> bool:
    """Whether a listing of a source, a folder or a glob of shards, could show files of an output.

    Args:
        source_url: one entry of `source.urls`.
        output: the output's root.
        own_folders: names of the folders below the output's root that hold its files.
    """
    folder, pattern = _split_glob(source_url)
    source = place_of(folder)
    if any(source.path_from(output.below(name)) is not None for name in own_folders):
        return True
    path = output.path_from(source)
    if path is None:
        return False
    return not pattern or _matches_below(pattern.split("/"), path)


def _split_glob(url: str) -> tuple[str, str]:
    """The folder before the first wildcard, and the pattern below it; no pattern for a URL without wildcards."""
    if not glob.has_magic(url) or ("://" not in url and os.path.lexists(url)):
        return url, ""
    at = min(url.index(sign) for sign in MAGIC if sign in url)
    folder, slash, _ = url[:at].rpartition("/")
    return folder or ("/" if slash else "."), url[len(folder) + len(slash) :]


def _matches_below(pattern: list[str], path: tuple[str, ...]) -> bool:
    """Whether a pattern could match a Parquet file at or below `path`; only `**` stands for several names."""
    ending = pattern[-1][max(pattern[-1].rfind(sign) for sign in (*MAGIC, "]")) + 1 :]
    if not (ending.endswith(".parquet") or ".parquet".endswith(ending)):
        return False
    for number, name in enumerate(path):
        if number < len(pattern) and "**" in pattern[number]:
            return True
        if number >= len(pattern) - 1 or not fnmatch.fnmatchcase(name, pattern[number]):
            return False
    return True
