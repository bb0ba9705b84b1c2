"""The files of a plan: `plan.parquet` is generation 0, and each extension adds the next one below `plan/`.

Each is created by one put-if-absent and never changes. A later generation holds only the shards that it adds, the
selection of rows if it changes, and the digest of the file before it. So of two extensions at once one is created, and
a generation that was removed or written again is detected.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger import layout
from pipeline.storage import Store, WriteResult, put_idempotent, put_if_absent
from pipeline.storage.parquet import decode_parquet, encode_parquet, read_metadata
from schemas.caption_row import SCHEMA_VERSION
from schemas.footer import FooterKey
from schemas.plan import PLAN, PlanKey
from schemas.shard import Shard

READERS = 16
"""Generations read at the same time: `caption --follow` may have added hundreds, each a GET of some 40 ms on S3."""

_COLUMNS = {"shard": "path", "url": "url", "size": "size", "etag": "etag"}
"""Column to field of `Shard`."""


@dataclass(frozen=True, slots=True)
class SelectionChange:
    """Which rows are selected from a generation on."""

    selection: Mapping[str, Any]
    """As `RunRecord.selection`."""
    end_rows: Mapping[str, int] = field(default_factory=dict[str, int])
    """By shard: rows from this number on are beyond `source.limit`. Of other shards none is."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One file of a plan."""

    number: int
    shards: tuple[Shard, ...]
    """Those that it adds."""
    sha256: str
    """Hex, of the file."""
    predecessor: str | None
    """`sha256` of the generation before; None for generation 0."""
    change: SelectionChange | None = None
    """None: the selection stays as it was."""
    is_applied: bool = True
    """Whether the rows that it newly selects in earlier shards have been captioned."""


def create_generation(
    store: Store, shards: Sequence[Shard], before: Generation | None, change: SelectionChange | None = None
) -> Generation | None:
    """Create the generation after `before`; None if another run has created one of this number.

    Raises:
        StoreError: as `put_if_absent`.
    """
    number = before.number + 1 if before else 0
    attempt = uuid.uuid4().hex
    metadata = {str(FooterKey.SCHEMA_VERSION): SCHEMA_VERSION, str(FooterKey.ATTEMPT): attempt}
    if before:
        metadata |= {str(PlanKey.GENERATION): str(number), str(PlanKey.PREDECESSOR): before.sha256}
    if change:
        stored = {"selection": change.selection, "end_rows": change.end_rows}
        metadata[str(PlanKey.SELECTION)] = json.dumps(stored, sort_keys=True, ensure_ascii=False)
    columns = [[getattr(shard, field) for shard in shards] for field in _COLUMNS.values()]
    data = encode_parquet(pa.table(columns, schema=PLAN), metadata)
    if put_if_absent(store, layout.generation_path(number), data, attempt) is WriteResult.EXISTS:
        return None
    predecessor = before.sha256 if before else None
    return Generation(number, tuple(shards), _sha256(data), predecessor, change, is_applied=change is None)


def mark_applied(store: Store, number: int) -> None:
    """Record that every row that a generation newly selects in earlier shards has been captioned."""
    put_idempotent(store, layout.applied_path(number), json.dumps({"generation": number}).encode())


def read_generations(store: Store) -> tuple[Generation, ...]:
    """Return all generations of a plan, in order: one GET each, and one listing.

    Raises:
        ConfigError: there is no plan.
        OutputMismatch: of another schema version.
        StoreError: a file is damaged, missing or of another plan.
    """
    first = read_generation(store, 0)
    listed = [entry.path for entry in store.list(layout.GENERATIONS)]
    numbers = sorted(number for path in listed if (number := layout.generation_of(path)) is not None)
    applied = {layout.generation_of_applied(path) for path in listed}
    if not numbers:
        return (first,)
    with ThreadPoolExecutor(READERS) as pool:
        generations = (first, *pool.map(lambda number: read_generation(store, number), numbers))
    _check_sequence(store, generations)
    return tuple(
        replace(generation, is_applied=generation.is_applied or generation.number in applied)
        for generation in generations
    )


def read_generation(store: Store, number: int) -> Generation:
    """Return one generation; raises as `read_generations`."""
    where = f"{store.url}/{layout.generation_path(number)}"
    try:
        data = store.get(layout.generation_path(number))
    except FileNotFoundError as err:
        raise ConfigError(f"{where}: there is no plan; run `joyfleet caption` first, or give the output's URL") from err
    try:
        return _decode(where, number, data)
    except ValueError as err:
        raise StoreError(f"{where}: damaged ({err}); restore it, or start a new output") from err


def _decode(where: str, number: int, data: bytes) -> Generation:
    metadata, _ = read_metadata(data)
    version = _value(metadata, FooterKey.SCHEMA_VERSION) or "none"
    if version != SCHEMA_VERSION:
        raise OutputMismatch(
            f"{where}: schema version {version!r}, and this JoyFleet reads {SCHEMA_VERSION!r}; "
            "use the JoyFleet that made it, or a new output"
        )
    stored_number = _value(metadata, PlanKey.GENERATION) or "0"
    if stored_number != str(number):
        raise ValueError(f"it is generation {stored_number}, expected {number}")
    table = decode_parquet(data, PLAN)
    rows = zip(*(table[column].to_pylist() for column in _COLUMNS), strict=True)
    shards = tuple(Shard(path, url, size, etag) for path, url, size, etag in rows)
    change = _change(_value(metadata, PlanKey.SELECTION))
    predecessor = _value(metadata, PlanKey.PREDECESSOR)
    return Generation(number, shards, _sha256(data), predecessor, change, is_applied=change is None)


def _change(text: str | None) -> SelectionChange | None:
    """Return the selection in a footer; raises ValueError."""
    if text is None:
        return None
    try:
        stored: dict[str, Any] = json.loads(text)
        end_rows = {str(shard): int(row) for shard, row in stored["end_rows"].items()}
        return SelectionChange(dict(stored["selection"]), end_rows)
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise ValueError(f"{PlanKey.SELECTION} in the footer is malformed: {text[:80]!r}") from err


def _value(metadata: dict[bytes, bytes], key: str) -> str | None:
    value = metadata.get(key.encode())
    return None if value is None else value.decode(errors="replace")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_sequence(store: Store, generations: Sequence[Generation]) -> None:
    """Refuse generations that were not written one after the other."""
    owner: dict[str, int] = {}
    for expected, generation in enumerate(generations):
        where = f"{store.url}/{layout.generation_path(generation.number)}"
        if generation.number != expected:
            raise StoreError(
                f"{where}: follows generation {expected - 1}, and {layout.generation_path(expected)} is missing; "
                "restore it, or start a new output"
            )
        before = generations[expected - 1] if expected else None
        if before and generation.predecessor != before.sha256:
            raise StoreError(
                f"{where}: was written after a file with SHA-256 {generation.predecessor}, and "
                f"{layout.generation_path(before.number)} has {before.sha256}; restore that file, or start a new output"
            )
        for shard in generation.shards:
            if shard.path in owner:
                raise StoreError(
                    f"{where}: plans shard {shard.path}, which generation {owner[shard.path]} has planned; restore the "
                    "file, or start a new output"
                )
            owner[shard.path] = expected
