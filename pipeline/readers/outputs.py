"""Excludes outputs of JoyFleet from a source: their files are Parquet, but not shards."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError
from pipeline.readers.file_listing import Info

RUN, PLAN = "run.json", "plan.parquet"
"""Every output has both at its root as soon as a run has started."""
RECORDS = (RUN, PLAN, "limit.json", "parts.json")
"""All files at the root of an output."""
FOLDERS = ("captions", "index", "duplicates", "staging", "quarantine", "plan", "report", ".tmp")
"""What else an output holds. The layout is that of `pipeline.ledger.layout`, which readers do not import."""


def without_outputs(
    fs: Any,  # noqa: ANN401 - fsspec has no types
    url: str,
    files: Mapping[str, Info],
) -> tuple[dict[str, Info], tuple[str, ...]]:
    """Return the files of a listing that belong to no output of JoyFleet, and a remark for each output.

    Other files beside those of an output are kept: the output may be in the folder of the images itself.

    Raises:
        ConfigError: all files are those of outputs.
    """
    suspects = {root for path in files if path.endswith(".parquet") for root in _possible_roots(path)}
    roots = {root for root in suspects if all(_exists(fs, f"{root}/{name}", files) for name in (RUN, PLAN))}
    if not roots:
        return dict(files), ()
    owner = {path: root for path in files for root in roots if _is_own(path, root)}
    others = {path: info for path, info in files.items() if path not in owner}
    counts = Counter(owner.values())
    if not others:
        raise ConfigError(
            f"source {url}: all its files belong to JoyFleet's output {min(counts)}; give the folder of the images"
        )
    remarks = [f"{url}: {counts[root]:,} files of JoyFleet's output {root} are not read" for root in sorted(counts)]
    return others, tuple(remarks)


def _possible_roots(path: str) -> set[str]:
    """Where the root of an output would be, if this were one of its Parquet files."""
    names = path.split("/")
    roots = {"/".join(names[:number]) for number, name in enumerate(names[:-1]) if name in FOLDERS}
    return roots | ({path.rpartition("/")[0]} if names[-1] == PLAN else set())


def _exists(fs: Any, path: str, files: Mapping[str, Info]) -> bool:  # noqa: ANN401 - fsspec has no types
    return path in files or bool(fs.exists(path))


def _is_own(path: str, root: str) -> bool:
    name = path.removeprefix(f"{root}/")
    return name != path and (name in RECORDS or name.startswith(tuple(f"{folder}/" for folder in FOLDERS)))
