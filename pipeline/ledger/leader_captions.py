"""Gives images that were skipped as duplicates the captions of their leader, for an export or a corpus.

The leader of an image may be in any shard, so its committed file is read for it; a worker keeps the last `KEPT` files.
Where the leader failed, the captions are those of its stand-in: the row that was asked in its place.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError, StoreError
from pipeline.ledger.caption_table import from_parquet
from pipeline.ledger.duplicates_record import read_record
from pipeline.ledger.layout import committed_path, duplicates_path, quarantine_path
from pipeline.storage import Store
from pipeline.storage.parquet import decode_parquet
from schemas.duplicates import FOLLOWER
from schemas.status import Reason, Status

KEPT = 16
"""Committed files, some 1 to 10 MB each in memory."""

BY_CONTENT = "{by: sha256}"
"""Ends the message of rows whose image is equal to its leader's, byte for byte."""

_OWN = ("shard", "row", "key", "slot", "source", "recipe", "duplicate_of")
_OF_EQUAL_IMAGES = ("image_sha256", "image_bytes", "image_format", "width", "height")

Rows = Mapping[str, Mapping[str, Any]]
"""Caption rows of an image, by slot."""


def with_leader_captions(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return caption rows of a shard; a row that was skipped as a duplicate has the result of its leader, if it is ok.

    Args:
        store: the output.
        rows: of one shard.

    Raises:
        PipelineError: a leader's shard is not committed yet.
        StoreError: a file is damaged, or the record of the duplicates is missing.
    """
    leaders = {str(row["duplicate_of"]) for row in rows if row["reason"] == Reason.DUPLICATE}
    results = {leader: _result(store, leader) for leader in sorted(leaders)}
    return [
        _led(row, results[row["duplicate_of"]].get(row["slot"])) if row["reason"] == Reason.DUPLICATE else dict(row)
        for row in rows
    ]


def _led(row: Mapping[str, Any], result: Mapping[str, Any] | None) -> dict[str, Any]:
    if result is None:
        return dict(row)
    own = (*_OWN, *(() if str(row["message"]).endswith(BY_CONTENT) else _OF_EQUAL_IMAGES))
    return {**result, **{name: row[name] for name in own}}


def _result(store: Store, leader: str) -> Rows:
    """The captions of a leader; those of its stand-in in the slots in which it has none."""
    shard, _, row = leader.rpartition("#")
    own = _rows(store, shard, int(row), leader)
    result = {slot: values for slot, values in own.items() if values["status"] == Status.OK}
    if own and len(result) == len(own):
        return result
    for follower in _followers(store, leader):
        asked = _rows(store, *follower, leader)
        result = {slot: values for slot, values in asked.items() if values["status"] == Status.OK} | result
    return result


def _rows(store: Store, shard: str, row: int, leader: str) -> Rows:
    """The caption rows of an image; none if its shard is in quarantine."""
    table = _committed(store, shard)
    if table is None:
        if not store.exists(quarantine_path(shard)):
            raise PipelineError(
                f"{store.url}: shard {shard} is not committed yet, and duplicates wait for the captions of {leader}; "
                "finish the captions first, or leave `duplicates` out"
            )
        return {}
    of_image = table.filter(pc.call_function("equal", [table["row"], pa.scalar(row)])).to_pylist()
    return {str(values["slot"]): values for values in of_image}


def start_reading() -> None:
    """Forget the files of an earlier export of this process, since they may have been replaced."""
    _committed.cache_clear()


@lru_cache(maxsize=KEPT)
def _committed(store: Store, shard: str) -> pa.Table | None:
    path = committed_path(shard)
    try:
        return from_parquet(store.get(path))
    except FileNotFoundError:
        return None
    except ValueError as err:
        raise StoreError(f"{store.url}/{path}: {err}; restore it") from err


def _followers(store: Store, leader: str) -> Iterable[tuple[str, int]]:
    """The followers of a leader, in order: only for leaders that failed, since all files of followers are read."""
    shard, _, row = leader.rpartition("#")
    for number in itertools.count():
        record = read_record(store, number)
        if record is None and number == 0:
            raise StoreError(
                f"{store.url}/{duplicates_path(0)}: is missing, so it is not known which images follow {leader}; run "
                "the job once more, or restore the file"
            )
        if record is None:  # each generation of the plan has one
            return
        for path in dict.fromkeys(record.files.values()):
            table = decode_parquet(store.get(path), FOLLOWER)
            own = pc.call_function("equal", [table["leader_shard"], pa.scalar(shard)])
            led = table.filter(own).select(["shard", "row", "leader_row"]).to_pylist()
            yield from ((values["shard"], values["row"]) for values in led if values["leader_row"] == int(row))
