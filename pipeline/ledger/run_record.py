"""run.json: the recipe that an output is bound to. The first run writes it, later runs must match.

The selection of the first run (`source.where`, `sample`, `limit`, `duplicates`) is beside the recipe, not in it: it
decides which captions exist, not what they are. So an output without a selection has the fingerprint that it always
had, and an output with one can be taken over by an output with another (`pipeline.ledger.taken_over`). A generation of
the plan may change it (`pipeline.ledger.plan_selection`).
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.layout import RUN
from pipeline.storage import Store, WriteResult, put_if_absent
from schemas.caption_row import SCHEMA_VERSION

SHOWN = 20
"""Differing fields in a message."""


class RecipeLike(Protocol):
    """All that can change a caption."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """As JSON; the fingerprint is computed from them, so a difference can be named."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """`run.json`."""

    fingerprint: str
    fields: Mapping[str, Any]
    """The recipe's."""
    about: Mapping[str, Any]
    """Facts about the first run: resolved config, versions, time."""
    selection: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The keys of `source` that select rows, in canonical form: only those that are set. Empty: all rows."""


def claim_run(
    store: Store, recipe: RecipeLike, about: Mapping[str, Any], selection: Mapping[str, Any] | None = None
) -> RunRecord:
    """Bind the output to a recipe, or check that it is bound to the same one; return `run.json`.

    Args:
        store: the output.
        recipe: this run's.
        about: JSON, kept as the first run wrote it; without secrets, since people read it.
        selection: of this run, as `RunRecord.selection`; stored by the first run.

    Raises:
        OutputMismatch: it is bound to another recipe (the differing fields are named), or has another schema version.
    """
    attempt = uuid.uuid4().hex
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "attempt": attempt,
        "recipe": {"fingerprint": recipe.fingerprint, "fields": recipe.fields},
        "about": about,
        **({"selection": selection} if selection else {}),
    }
    data = json.dumps(record, indent=2, ensure_ascii=False).encode()
    # Look first, so that resuming an output needs no right to write run.json again.
    if store.exists(RUN) or put_if_absent(store, RUN, data, attempt) is WriteResult.EXISTS:
        existing = read_run(store)
        if existing.fingerprint != recipe.fingerprint:
            fields = json.loads(data)["recipe"]["fields"]
            raise OutputMismatch(_explain(store, existing, recipe.fingerprint, fields))
        return existing
    return _record(json.loads(data))


def read_run(store: Store) -> RunRecord:
    """Return the content of `run.json`.

    Raises:
        ConfigError: there is none, so this is not an output.
        OutputMismatch: of another schema version.
        StoreError: it is not what `claim_run` writes.
    """
    try:
        data = store.get(RUN)
    except FileNotFoundError as err:
        raise ConfigError(f"{store.url}: no {RUN}, so not an output of JoyFleet; give the output's URL") from err
    try:
        record: dict[str, Any] = json.loads(data)
        version = record["schema_version"]
        if version == SCHEMA_VERSION:
            return _record(record)
    except (ValueError, KeyError, TypeError) as err:
        raise StoreError(f"{store.url}/{RUN}: damaged ({err!r}); restore it, or start a new output") from err
    raise OutputMismatch(
        f"{store.url}/{RUN}: schema version {version!r}, and this JoyFleet writes {SCHEMA_VERSION!r}; "
        "use the JoyFleet that made it, or a new output"
    )


def _record(record: Mapping[str, Any]) -> RunRecord:
    recipe = record["recipe"]
    return RunRecord(
        fingerprint=str(recipe["fingerprint"]),
        fields=dict(recipe["fields"]),
        about=dict(record["about"]),
        selection=dict(record.get("selection", {})),
    )


def _explain(store: Store, existing: RunRecord, fingerprint: str, fields: Mapping[str, Any]) -> str:
    return (
        f"{store.url}: bound to recipe {existing.fingerprint}, but the recipe of this run is {fingerprint}. They "
        f"differ in\n  {explain_differences(existing.fields, fields)}\n"
        "Change the config back, or give the run its own output"
    )


def explain_differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Return the fields in which the recipe of an output and that of a run differ, one a line."""
    current = json.loads(json.dumps(current))
    return _listed(list(differences(stored, current)) or ["no field; another version of JoyFleet made the fingerprint"])


def _listed(lines: Sequence[str]) -> str:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n  ".join([*lines[:SHOWN], *more])


def differences(stored: object, current: object, path: str = "") -> Iterator[str]:
    """Yield a line for each leaf of two JSON values that differs: `seed: 1 in the output, 2 in this run`."""
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        yield from _compared(dict(stored), dict(current), path)
    elif isinstance(stored, list) and isinstance(current, list):
        yield from _compared(dict(enumerate(stored)), dict(enumerate(current)), path)
    elif stored != current or type(stored) is not type(current):
        yield f"{path}: {stored!r} in the output, {current!r} in this run"


def _compared(stored: dict[Any, Any], current: dict[Any, Any], path: str) -> Iterator[str]:
    for key in stored | current:
        name = f"{path}.{key}" if path else str(key)
        if key not in current:
            yield f"{name}: {stored[key]!r} in the output, not set in this run"
        elif key not in stored:
            yield f"{name}: not set in the output, {current[key]!r} in this run"
        else:
            yield from differences(stored[key], current[key], name)
