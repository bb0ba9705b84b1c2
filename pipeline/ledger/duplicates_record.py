"""duplicates/: which rows of an output are not captioned, since an equal or similar image is captioned in their place.

The driver finds them once, from an index, and stores them: files of followers, then a record by put-if-absent that
names these files. There is one record for each generation of the plan, and it never changes. So every run, every
driver and `verify` have the same followers, also after the index is gone. A file holds the followers of many shards,
at most some 65,000 rows or one shard: a reader of a shard fetches about a megabyte.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StoreError
from pipeline.ledger.layout import duplicates_path, followers_path
from pipeline.storage import Store, put_if_absent
from pipeline.storage.parquet import decode_parquet, encode_parquet
from schemas.duplicates import FOLLOWER
from schemas.footer import FooterKey

FILE_ROWS = 1 << 16
READERS = 16
"""Records read at the same time: `caption --follow` may have added hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexIdentity:
    """Which index the followers come from."""

    url: str
    fingerprint: str
    plan: str
    """Hex SHA-256 of its first plan file: another index at the same URL has another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesRecord:
    """`duplicates/<generation>.json`."""

    index: IndexIdentity
    num_images: Mapping[str, int]
    """By shard that the generation adds, as the index has them."""
    files: Mapping[str, str]
    """Shard with followers to the path of their file."""
    num_followers: int


@dataclass(frozen=True, slots=True)
class FollowerFiles:
    """Where the followers of one shard are."""

    paths: tuple[str, ...]
    num_images: int
    """Of the shard."""


def read_record(store: Store, generation: int) -> DuplicatesRecord | None:
    """Return the record of a generation, or None if the output has none.

    Raises:
        StoreError: it is damaged.
    """
    path = duplicates_path(generation)
    try:
        data = store.get(path)
    except FileNotFoundError:
        return None
    try:
        record: dict[str, Any] = json.loads(data)
        return DuplicatesRecord(
            index=IndexIdentity(**record["index"]),
            num_images={str(shard): int(number) for shard, number in record["num_images"].items()},
            files={str(shard): str(path) for path, shards in record["files"].items() for shard in shards},
            num_followers=int(record["num_followers"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise StoreError(f"{store.url}/{path}: damaged ({err!r}); restore it, or start a new output") from err


def read_records(store: Store, num_generations: int) -> list[DuplicatesRecord | None]:
    """Return the records of all generations, in order; raises as `read_record`."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda number: read_record(store, number), range(num_generations)))


def claim_record(
    store: Store, generation: int, index: IndexIdentity, num_images: Mapping[str, int], followers: Iterable[pa.Table]
) -> DuplicatesRecord:
    """Store the followers of a generation, or return the record that another driver has stored.

    Args:
        store: the output.
        generation: number in the plan.
        index: where they come from.
        num_images: of each shard that the generation adds.
        followers: `schemas.duplicates.FOLLOWER`, those of a shard one after the other.
    """
    attempt = uuid.uuid4().hex
    files: dict[str, list[str]] = {}
    num_followers = 0
    for number, table in enumerate(_whole_shards(followers)):
        path = followers_path(generation, attempt, number)
        store.put(path, encode_parquet(table, {str(FooterKey.ATTEMPT): attempt}))
        files[path] = [str(shard) for shard in table["shard"].unique().to_pylist()]
        num_followers += table.num_rows
    record = {
        "attempt": attempt,
        "index": {"url": index.url, "fingerprint": index.fingerprint, "plan": index.plan},
        "num_followers": num_followers,
        "files": files,
        "num_images": dict(num_images),
    }
    data = json.dumps(record, indent=1, ensure_ascii=False).encode()
    # If another driver was faster, the own files stay until `clean`: no record names them.
    put_if_absent(store, duplicates_path(generation), data, attempt)
    existing = read_record(store, generation)
    if existing is None:
        raise StoreError(f"{store.url}/{duplicates_path(generation)}: is gone a moment after it was written; run again")
    return existing


def _whole_shards(followers: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Put tables together to files of about `FILE_ROWS` rows; no shard is in two of them."""
    pending = FOLLOWER.empty_table()
    for table in followers:
        pending = pa.concat_tables([pending, table])
        if pending.num_rows < FILE_ROWS:
            continue
        last = pending["shard"][-1]
        end = int(pc.call_function("index", [pending["shard"]], pc.IndexOptions(last)).as_py())
        if end:
            yield pending.slice(0, end).combine_chunks()
            pending = pending.slice(end).combine_chunks()
    if pending.num_rows:
        yield pending


def files_of(records: Sequence[DuplicatesRecord | None], shard: str) -> FollowerFiles | None:
    """Return where the followers of a shard are; None if the shard is not in the index."""
    paths = [record.files[shard] for record in records if record and shard in record.files]
    counts = [record.num_images[shard] for record in records if record and shard in record.num_images]
    return FollowerFiles(tuple(paths), counts[0]) if counts else None


def read_followers(store: Store, files: FollowerFiles, shard: str) -> dict[int, str]:
    """Return the followers of a shard: row to leader, as the caption row's `duplicate_of`.

    Raises:
        StoreError: a file is damaged or gone.
    """
    leaders: dict[int, str] = {}
    for path in files.paths:
        try:
            table = decode_parquet(store.get(path), FOLLOWER)
        except (FileNotFoundError, ValueError) as err:
            raise StoreError(f"{store.url}/{path}: {err}; restore the file, or start a new output") from err
        own = table.filter(pc.call_function("equal", [table["shard"], pa.scalar(shard)]))
        columns = (own[name].to_pylist() for name in ("row", "leader_shard", "leader_row"))
        leaders |= {row: f"{leader}#{leader_row}" for row, leader, leader_row in zip(*columns, strict=True)}
    return leaders
