"""What an output is to hold, fixed by its first run, and what of it is still to do.

There is no state of "running" that could go stale: left is what is planned, less what is committed,
less what is in quarantine, read from three listings.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger import layout
from pipeline.storage import Store, WriteResult, put_if_absent
from schemas.caption_row import SCHEMA_VERSION
from schemas.footer import FooterKey
from schemas.plan import PLAN
from schemas.shard import Shard

SHOWN = 3
"""Shards in a message."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The shards of an output, by path, in the order of the first run's listing."""

    shards: Mapping[str, Shard]
    unplanned: tuple[Shard, ...] = ()
    """Shards that the source has gained since; not part of this output."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of a plan."""

    fragments: Mapping[str, tuple[str, ...]]
    """Every shard still to do, in the plan's order, with the paths of its fragments, unchecked, sorted."""
    committed: frozenset[str]
    """Planned shards with a committed file."""
    quarantined: frozenset[str]
    """Planned shards with a quarantine record and no committed file: left alone until the record is removed."""


def claim_plan(store: Store, shards: Sequence[Shard]) -> Plan:
    """Fix the plan, or find the one that an earlier run or another driver fixed; both end with the same shards.

    Each shard's URL is that of `shards`, size and etag are in both.

    Raises:
        ConfigError: no shard, or two that cannot stand beside each other.
        OutputMismatch: a planned shard has changed or is gone.
    """
    if not shards:
        raise ConfigError("source: no shards; an output cannot be planned from nothing")
    layout.check_shard_paths(shard.path for shard in shards)
    attempt = uuid.uuid4().hex
    if not store.exists(layout.PLAN):
        outcome = put_if_absent(store, layout.PLAN, _to_parquet(shards, attempt), attempt)
        if outcome is not WriteResult.EXISTS:
            return Plan({shard.path: shard for shard in shards})
    planned = read_plan(store).shards
    now = {shard.path: shard for shard in shards}
    _refuse_changes(store, planned, now)
    unplanned = tuple(shard for shard in shards if shard.path not in planned)
    return Plan({path: now[path] for path in planned}, unplanned)


def read_plan(store: Store) -> Plan:
    """Return the plan as it was fixed.

    Raises:
        ConfigError: there is none.
        OutputMismatch: of another schema version.
        StoreError: it is not what `claim_plan` writes.
    """
    where = f"{store.url}/{layout.PLAN}"
    try:
        data = store.get(layout.PLAN)
    except FileNotFoundError as err:
        raise ConfigError(f"{where}: there is no plan; run `caption` first, or give the output's URL") from err
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError) as err:
        raise StoreError(f"{where}: damaged ({' '.join(str(err).split())}); restore it, or start a new output") from err
    metadata = cast("dict[bytes, bytes]", file.metadata.metadata or {})
    version = metadata.get(FooterKey.SCHEMA_VERSION.encode(), b"none").decode(errors="replace")
    if version != SCHEMA_VERSION or not table.schema.equals(PLAN):
        raise OutputMismatch(
            f"{where}: schema version {version!r}, and this JoyFleet reads {SCHEMA_VERSION!r}; "
            "use the JoyFleet that made it, or a new output"
        )
    rows = zip(*(table[name].to_pylist() for name in ("shard", "url", "size", "etag")), strict=True)
    return Plan({path: Shard(path, url, size, etag) for path, url, size, etag in rows})


def _to_parquet(shards: Sequence[Shard], attempt: str) -> bytes:
    columns = {
        "shard": [shard.path for shard in shards],
        "url": [shard.url for shard in shards],
        "size": [shard.size for shard in shards],
        "etag": [shard.etag for shard in shards],
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, PLAN, compression="zstd", write_page_checksum=True) as writer:
        writer.add_key_value_metadata({str(FooterKey.SCHEMA_VERSION): SCHEMA_VERSION, str(FooterKey.ATTEMPT): attempt})
        writer.write_table(pa.Table.from_pydict(columns, schema=PLAN))
    return sink.getvalue().to_pybytes()


def _refuse_changes(store: Store, planned: Mapping[str, Shard], now: Mapping[str, Shard]) -> None:
    found: list[str] = []
    for path, was in planned.items():
        found_now = now.get(path)
        if found_now is None:
            found.append(f"{path} is gone (was {was.size} bytes, etag {was.etag})")
        elif (found_now.size, found_now.etag) != (was.size, was.etag):
            found.append(f"{path} was {was.size} bytes, etag {was.etag}, is {found_now.size}, etag {found_now.etag}")
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise OutputMismatch(
            f"{store.url}: {len(found)} of {len(planned)} planned shards are not what they were: "
            f"{'; '.join(found[:SHOWN])}{more}. Restore them, or caption the source as it is now into a new output"
        )


def remaining(store: Store, plan: Plan) -> Remaining:
    """Compare the plan with the output: one listing each of captions/, quarantine/ and staging/."""
    committed = _named(store, layout.CAPTIONS, plan)
    quarantined = _named(store, layout.QUARANTINE, plan) - committed
    ended = committed | quarantined
    todo: dict[str, list[str]] = {path: [] for path in plan.shards if path not in ended}
    for entry in store.list(layout.STAGING):
        shard = layout.shard_of_fragment(entry.path)
        if shard in todo:
            todo[shard].append(entry.path)
    return Remaining({path: tuple(sorted(paths)) for path, paths in todo.items()}, committed, quarantined)


def _named(store: Store, folder: str, plan: Plan) -> frozenset[str]:
    meaning = layout.shard_of_committed if folder == layout.CAPTIONS else layout.shard_of_quarantined
    found: Iterable[str | None] = (meaning(entry.path) for entry in store.list(folder))
    return frozenset(shard for shard in found if shard and shard in plan.shards)
