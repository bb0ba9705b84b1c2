"""Shards that could not be read, and why: they hold up no run, and no run forgets them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import StoreError
from pipeline.ledger.layout import QUARANTINE, quarantine_path, shard_of_quarantined
from pipeline.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """`quarantine/<shard path>.json`."""

    shard: str
    message: str
    """What was found."""
    attempts: int
    """Times that reading was tried."""
    time: str
    """UTC, ISO 8601."""
    versions: Mapping[str, str]
    traceback: str | None = None
    """Of a defect of JoyFleet; None where the shard alone is at fault, and in records of earlier releases."""


def put_quarantine(store: Store, record: Quarantined) -> None:
    """Write a record, or replace the shard's earlier one."""
    data = json.dumps(asdict(record), indent=2, ensure_ascii=False).encode()
    store.put(quarantine_path(record.shard), data)


def list_quarantine(store: Store) -> list[Quarantined]:
    """Return all records, by shard."""
    paths = [entry.path for entry in store.list(QUARANTINE) if shard_of_quarantined(entry.path)]
    return [_read(store, path) for path in sorted(paths)]


def remove_quarantine(store: Store, shards: Iterable[str]) -> None:
    """Let the next run take these shards up again."""
    store.delete([quarantine_path(shard) for shard in shards])


def _read(store: Store, path: str) -> Quarantined:
    data = store.get(path)
    try:
        fields: dict[str, Any] = json.loads(data)
        record = Quarantined(**fields)
        if quarantine_path(record.shard) != path:
            raise ValueError(f"it is about shard {record.shard!r}")
        return record
    except (ValueError, TypeError) as err:
        raise StoreError(f"{store.url}/{path}: no quarantine record ({err}); remove the file") from err
