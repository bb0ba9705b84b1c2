"""The plan of an output, fixed by its first run, and the remaining work.

Remaining work = planned shards minus committed shards minus quarantined shards, read from three listings. There is no
"running" state that could go stale.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger import layout
from pipeline.storage import Store, WriteResult, put_if_absent
from pipeline.storage.parquet import decode_parquet, encode_parquet, read_metadata
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
    """Shards added to the source since then; not part of this output."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """The remaining work of a plan."""

    fragments: Mapping[str, tuple[str, ...]]
    """Every remaining shard, in the plan's order, with the paths of its fragments, unchecked, sorted."""
    committed: frozenset[str]
    """Planned shards with a committed file."""
    quarantined: frozenset[str]
    """Planned shards with a quarantine record and no committed file; not read until the record is removed."""


def claim_plan(store: Store, shards: Sequence[Shard]) -> Plan:
    """Fix the plan, or return the one that an earlier run or another driver fixed: every driver has the same shards.

    The URLs are those of `shards`; sizes and etags are the same in both.

    Raises:
        ConfigError: no shard, or two whose files cannot exist side by side.
        OutputMismatch: a planned shard has changed or is gone.
    """
    if not shards:
        raise ConfigError("source: no shards; give a source with at least one shard")
    layout.check_shard_paths(shard.path for shard in shards)
    attempt = uuid.uuid4().hex
    if not store.exists(layout.PLAN):
        outcome = put_if_absent(store, layout.PLAN, _to_parquet(shards, attempt), attempt)
        if outcome is not WriteResult.EXISTS:
            return Plan({shard.path: shard for shard in shards})
    planned = read_plan(store).shards
    current = {shard.path: shard for shard in shards}
    _refuse_changes(store, planned, current)
    unplanned = tuple(shard for shard in shards if shard.path not in planned)
    return Plan({path: current[path] for path in planned}, unplanned)


def read_plan(store: Store) -> Plan:
    """Return the stored plan.

    Raises:
        ConfigError: there is none.
        OutputMismatch: of another schema version.
        StoreError: it is not what `claim_plan` writes.
    """
    where = f"{store.url}/{layout.PLAN}"
    try:
        data = store.get(layout.PLAN)
    except FileNotFoundError as err:
        raise ConfigError(f"{where}: there is no plan; run `joyfleet caption` first, or give the output's URL") from err
    try:
        metadata, _ = read_metadata(data)
        version = metadata.get(FooterKey.SCHEMA_VERSION.encode(), b"none").decode(errors="replace")
        if version != SCHEMA_VERSION:
            raise OutputMismatch(
                f"{where}: schema version {version!r}, and this JoyFleet reads {SCHEMA_VERSION!r}; "
                "use the JoyFleet that made it, or a new output"
            )
        table = decode_parquet(data, PLAN)
    except ValueError as err:
        raise StoreError(f"{where}: damaged ({err}); restore it, or start a new output") from err
    rows = zip(*(table[name].to_pylist() for name in ("shard", "url", "size", "etag")), strict=True)
    return Plan({path: Shard(path, url, size, etag) for path, url, size, etag in rows})


def _to_parquet(shards: Sequence[Shard], attempt: str) -> bytes:
    columns = [[getattr(shard, name) for shard in shards] for name in ("path", "url", "size", "etag")]
    metadata = {str(FooterKey.SCHEMA_VERSION): SCHEMA_VERSION, str(FooterKey.ATTEMPT): attempt}
    return encode_parquet(pa.table(columns, schema=PLAN), metadata)


def _refuse_changes(store: Store, planned: Mapping[str, Shard], current: Mapping[str, Shard]) -> None:
    changes: list[str] = []
    for path, old in planned.items():
        new = current.get(path)
        if new is None:
            changes.append(f"{path} is gone (was {old.size} bytes, etag {old.etag})")
        elif (new.size, new.etag) != (old.size, old.etag):
            changes.append(f"{path} was {old.size} bytes, etag {old.etag}, is {new.size}, etag {new.etag}")
    if changes:
        more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
        raise OutputMismatch(
            f"{store.url}: {len(changes)} of {len(planned)} planned shards have changed: "
            f"{'; '.join(changes[:SHOWN])}{more}. Restore them, or caption the source as it is now into a new output"
        )


def remaining(store: Store, plan: Plan) -> Remaining:
    """Compare the plan with the output: one listing each of captions/, quarantine/ and staging/."""
    committed = _named(store, layout.CAPTIONS, plan)
    quarantined = _named(store, layout.QUARANTINE, plan) - committed
    finished = committed | quarantined
    todo: dict[str, list[str]] = {path: [] for path in plan.shards if path not in finished}
    for entry in store.list(layout.STAGING):
        shard = layout.shard_of_fragment(entry.path)
        if shard in todo:
            todo[shard].append(entry.path)
    return Remaining({path: tuple(sorted(paths)) for path, paths in todo.items()}, committed, quarantined)


def _named(store: Store, folder: str, plan: Plan) -> frozenset[str]:
    shard_of = layout.shard_of_committed if folder == layout.CAPTIONS else layout.shard_of_quarantined
    shards: Iterable[str | None] = (shard_of(entry.path) for entry in store.list(folder))
    return frozenset(shard for shard in shards if shard and shard in plan.shards)
