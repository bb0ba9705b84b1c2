"""The paths of an output, and which shard a listed path belongs to."""

import re
from collections.abc import Iterable

from pipeline.errors import ConfigError

RUN = "run.json"
PLAN = "plan.parquet"
LIMIT = "limit.json"
"""Only in outputs of a job with `source.limit`."""
PARTS = "parts.json"
"""Only in outputs that several drivers divide."""
GENERATIONS = "plan"
CAPTIONS = "captions"
INDEX = "index"
"""In place of `captions`, in the output of `joyfleet index`."""
DUPLICATES = "duplicates"
"""Only in outputs of a job with `source.duplicates`."""
STAGING = "staging"
QUARANTINE = "quarantine"
RUNS = "report/runs"
FOLDERS = (CAPTIONS, INDEX, DUPLICATES, STAGING, QUARANTINE, GENERATIONS, "report", ".tmp")
"""All folders of an output; `pipeline.readers.outputs` recognises an output by them."""

_COMMITTED = re.compile(r"captions/(?P<shard>.+)\.parquet", re.DOTALL)
_INDEXED = re.compile(r"index/(?P<shard>.+)\.parquet", re.DOTALL)
_QUARANTINED = re.compile(r"quarantine/(?P<shard>.+)\.json", re.DOTALL)
_RUN_EVENTS = re.compile(r"report/runs/\d{8}T\d{6}Z-[0-9a-f-]{36}\.jsonl")
_TEMPORARY = re.compile(r"\.tmp/[0-9a-f]{32}|staging/\.probe-[0-9a-f]{32}")
_GENERATION = re.compile(r"plan/(?P<number>\d{5,})\.parquet")
_FOLLOWERS = re.compile(r"duplicates/(?P<number>\d{5,})-[0-9a-f]{32}-\d{5,}\.parquet")
_APPLIED = re.compile(r"plan/(?P<number>\d{5,})-applied\.json")
_FRAGMENT = re.compile(r"staging/(?P<shard>.+)/\d{10,}-[0-9a-f]{32}\.parquet", re.DOTALL)


def committed_path(shard: str) -> str:
    """The file whose existence is the commit. The shard's suffix is kept: `a.tar` and `a.parquet` are two shards."""
    return f"{CAPTIONS}/{shard}.parquet"


def index_path(shard: str) -> str:
    """The index rows of a shard; its existence is the commit."""
    return f"{INDEX}/{shard}.parquet"


def generation_path(number: int) -> str:
    """A file of the plan; generation 0 is the plan of the first run."""
    return f"{GENERATIONS}/{number:05d}.parquet" if number else PLAN


def generation_of(path: str) -> int | None:
    """The number of a later generation, or None when none has such a name."""
    match = _GENERATION.fullmatch(path)
    return int(match["number"]) if match and generation_path(int(match["number"])) == path else None


def applied_path(number: int) -> str:
    """Says that the rows which a generation newly selects have been captioned."""
    return f"{GENERATIONS}/{number:05d}-applied.json"


def generation_of_applied(path: str) -> int | None:
    """The generation of such a file, or None when it has another name."""
    match = _APPLIED.fullmatch(path)
    return int(match["number"]) if match else None


def duplicates_path(number: int) -> str:
    """The record of the duplicates that a generation of the plan adds."""
    return f"{DUPLICATES}/{number:05d}.json"


def followers_path(number: int, attempt: str, file_number: int) -> str:
    """A file of followers, named by the attempt that wrote it: the record names those that count."""
    return f"{DUPLICATES}/{number:05d}-{attempt}-{file_number:05d}.parquet"


def generation_of_followers(path: str) -> int | None:
    """The generation of a file of followers, or None when none has such a name."""
    match = _FOLLOWERS.fullmatch(path)
    return int(match["number"]) if match else None


def quarantine_path(shard: str) -> str:
    """The record of a shard that could not be read."""
    return f"{QUARANTINE}/{shard}.json"


def staging_folder(shard: str) -> str:
    """Folder of the shard's fragments; an object store may list those of the shard `<shard>/...` there too."""
    return f"{STAGING}/{shard}"


def fragment_path(shard: str, first_row: int, attempt: str) -> str:
    """Path of a fragment. The order of the names is that of the first rows."""
    return f"{STAGING}/{shard}/{first_row:010d}-{attempt}.parquet"


def first_row_of_fragment(path: str) -> int:
    """The number of the first image that a fragment covers."""
    return int(path.rpartition("/")[2].partition("-")[0])


def shard_of_committed(path: str) -> str | None:
    """The shard, or None when no committed file has such a name."""
    return _shard(_COMMITTED, path)


def shard_of_indexed(path: str) -> str | None:
    """The shard, or None when no file of an index has such a name."""
    return _shard(_INDEXED, path)


def shard_of_quarantined(path: str) -> str | None:
    """The shard, or None when no quarantine record has such a name."""
    return _shard(_QUARANTINED, path)


def shard_of_fragment(path: str) -> str | None:
    """The shard, or None when no fragment has such a name. `a/b` is not part of the shard `a`."""
    return _shard(_FRAGMENT, path)


def is_temporary(path: str) -> bool:
    """Whether it has the name of a temporary file of a write or of a start-up probe."""
    return _TEMPORARY.fullmatch(path) is not None


def is_run_events(path: str) -> bool:
    """Whether it is a file of run events."""
    return _RUN_EVENTS.fullmatch(path) is not None


def _shard(pattern: re.Pattern[str], path: str) -> str | None:
    match = pattern.fullmatch(path)
    return match["shard"] if match else None


def check_shard_paths(shards: Iterable[str]) -> None:
    """Refuse shards whose committed files could not exist side by side on a disk.

    Raises:
        ConfigError: a path occurs twice, or the file of one shard is the folder of another (`a` and `a.parquet/b`).
    """
    seen: set[str] = set()
    for shard in shards:
        if shard in seen:
            raise ConfigError(f"shard {shard}: occurs twice in the source; list each shard once")
        seen.add(shard)
    for shard in sorted(seen):
        parts = shard.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            for suffix in (".parquet", ".json"):
                if folder.endswith(suffix) and folder.removesuffix(suffix) in seen:
                    raise ConfigError(
                        f"shards {folder.removesuffix(suffix)} and {shard}: the output's file for the first would be "
                        "the folder of the second; rename one, or give each its own output"
                    )
