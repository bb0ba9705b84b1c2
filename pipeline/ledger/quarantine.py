"""Quarantine records: shards that could not be read, and why. A run continues without them and reports them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from pipeline.errors import StoreError
from pipeline.ledger.json_record import from_json
from pipeline.ledger.layout import QUARANTINE, quarantine_path, shard_of_quarantined
from pipeline.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """`quarantine/<shard path>.json`."""

    shard: str
    message: str
    """What was found."""
    attempts: int
    """How often reading was tried."""
    time: str
    """UTC, ISO 8601."""
    versions: Mapping[str, str]
    traceback: str | None = None
    """Of a bug in JoyFleet; None if the shard itself is at fault, and in records of earlier releases."""


def put_quarantine(store: Store, record: Quarantined) -> None:
    """Write a record, or replace the shard's earlier one."""
    data = json.dumps(asdict(record), indent=2, ensure_ascii=False).encode()
    store.put(quarantine_path(record.shard), data)


def list_quarantine(store: Store) -> list[Quarantined]:
    """Return all records, by shard."""
    paths = [entry.path for entry in store.list(QUARANTINE) if shard_of_quarantined(entry.path)]
    return [_read(store, path) for path in sorted(paths)]


def remove_quarantine(store: Store, shards: Iterable[str]) -> None:
    """Remove the records of these shards, so that the next run reads the shards again."""
    store.delete([quarantine_path(shard) for shard in shards])


def _read(store: Store, path: str) -> Quarantined:
    data = store.get(path)
    try:
        record = from_json(Quarantined, json.loads(data))
        if quarantine_path(record.shard) != path:
            raise ValueError(f"it names shard {record.shard!r}")
        return record
    except (ValueError, TypeError, AttributeError) as err:
        raise StoreError(
            f"{store.url}/{path}: not a quarantine record ({err}); remove it, or `unquarantine` the shard"
        ) from err
