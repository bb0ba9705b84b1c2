"""Caption rows of earlier outputs that a run takes over, so that no request is sent for them (`reuse`).

Only `ok` rows are taken over, from committed files of shards that have not changed, made with the same recipe. So a row
that is taken over is the row that the run would have asked for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.caption_table import digest_mismatch, from_parquet
from pipeline.ledger.commit import checked_footer
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.layout import CAPTIONS, committed_path, shard_of_committed
from pipeline.ledger.run_record import RecipeLike, explain_differences, read_run
from pipeline.ledger.shard_plan import read_plan
from pipeline.storage import Store, place_of
from schemas.caption_row import CAPTION_ROW
from schemas.shard import Shard
from schemas.status import Status

SHOWN = 3
"""Shards in a message."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """The caption rows of a shard that a run takes over."""

    rows: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict[int, Sequence[Mapping[str, Any]]])
    """By the number of the image; of each slot at most one."""

    def num_rows(self, row: int) -> int:
        """Number of caption rows of an image."""
        return len(self.rows.get(row, ()))

    def or_else(self, other: "TakenOver") -> "TakenOver":
        """Return these rows, and those of another one in the slots of an image that these do not have."""
        rows = dict(self.rows)
        for number, of_image in other.rows.items():
            own = rows.get(number, ())
            slots = {row["slot"] for row in own}
            rows[number] = (*own, *(row for row in of_image if row["slot"] not in slots))
        return TakenOver(rows)


def shards_to_take_over(earlier: Store, output: Store, recipe: RecipeLike, shards: Sequence[Shard]) -> frozenset[str]:
    """Return the shards that an earlier output has committed, after a check that their rows can be taken over.

    Args:
        earlier: the output to take rows from.
        output: the output of this run.
        recipe: of this run.
        shards: of this run, as they are now.

    Raises:
        ConfigError: `earlier` is no output, or is the output of this run.
        OutputMismatch: it has another recipe, or a shard that both have has changed, or no shard in common.
    """
    if place_of(earlier.url) == place_of(output.url):
        raise ConfigError(f"reuse {earlier.url}: is the output of this job; name an earlier output, or leave reuse out")
    record = read_run(earlier)
    if record.fingerprint != recipe.fingerprint:
        raise OutputMismatch(
            f"reuse {earlier.url}: its captions were made with recipe {record.fingerprint}, those of this job with "
            f"{recipe.fingerprint}. They differ in\n  {explain_differences(record.fields, recipe.fields)}\n"
            "Change the config back, or leave this output out of reuse"
        )
    planned = read_plan(earlier).shards
    shared = [(planned[shard.path], shard) for shard in shards if shard.path in planned]
    if not shared:
        raise OutputMismatch(
            f"reuse {earlier.url}: none of its {len(planned)} shards, such as {next(iter(planned))}, is in the source "
            "of this job; leave it out of reuse"
        )
    changed = [new.path for old, new in shared if (old.size, old.etag) != (new.size, new.etag)]
    if changed:
        more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise OutputMismatch(
            f"reuse {earlier.url}: {len(changed)} shards have changed since they were captioned there: "
            f"{', '.join(changed[:SHOWN])}{more}. Restore them, or leave this output out of reuse"
        )
    committed = {shard_of_committed(entry.path) for entry in earlier.list(CAPTIONS)}
    return frozenset(new.path for _, new in shared if new.path in committed)


def read_taken_over(stores: Sequence[Store], run: RunIdentity, shard: Shard) -> TakenOver:
    """Read the `ok` rows of a shard in earlier outputs; of two outputs with the same row the first one's is taken.

    Raises:
        OutputMismatch: a file belongs to another shard or recipe.
        StoreError: a file is damaged.
    """
    rows: dict[int, dict[str, Mapping[str, Any]]] = {}
    for store in stores:
        for row in _ok_rows(store, run, shard):
            rows.setdefault(row["row"], {}).setdefault(row["slot"], row)
    return TakenOver({number: tuple(of_slots.values()) for number, of_slots in rows.items()})


def _ok_rows(store: Store, run: RunIdentity, shard: Shard) -> Sequence[Mapping[str, Any]]:
    path = committed_path(shard.path)
    try:
        data = store.get(path)
    except FileNotFoundError as err:
        raise StoreError(
            f"{store.url}/{path}: is gone, and its captions were to be taken over; run again, or leave this output out "
            "of reuse"
        ) from err
    footer, _ = checked_footer(store, data, run, shard)
    try:
        table = from_parquet(data)
        fault = digest_mismatch(footer, table, run.slots)
    except ValueError as err:
        fault, table = str(err), CAPTION_ROW.empty_table()
    if fault:
        raise StoreError(f"{store.url}/{path}: {fault}; restore the file, or leave this output out of reuse")
    rows = table.select(CAPTION_ROW.names).to_pylist()
    # Which images are duplicates is the selection of each output.
    return [{**row, "duplicate_of": None} for row in rows if row["status"] == Status.OK]


def to_stream(rows: Collection[Mapping[str, Any]]) -> bytes:
    """Return caption rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, CAPTION_ROW) as writer:
        writer.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=CAPTION_ROW))
    return sink.getvalue().to_pybytes()


def from_stream(data: bytes | None) -> pa.Table:
    """Return the caption rows of a stream; None has none."""
    if data is None:
        return CAPTION_ROW.empty_table()
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
