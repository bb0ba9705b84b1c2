"""Which recipe an output is bound to: the first run writes it, every later one must bring the same."""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger.layout import RUN
from pipeline.storage import Store, WriteResult, put_if_absent
from schemas.caption_row import SCHEMA_VERSION

SHOWN = 20
"""Differing fields in a message; a run with more of them is another run altogether."""


class RecipeLike(Protocol):
    """All that can change a caption."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """As JSON; what the fingerprint is made of, so that a difference can be named."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """`run.json`."""

    fingerprint: str
    fields: Mapping[str, Any]
    """The recipe's."""
    about: Mapping[str, Any]
    """What the first run told of itself: resolved config, versions, time."""


def claim_run(store: Store, recipe: RecipeLike, about: Mapping[str, Any]) -> RunRecord:
    """Bind the output to a recipe, or find it bound to the same one; return what stands in `run.json`.

    Args:
        store: the output.
        recipe: this run's.
        about: JSON, kept as the first run gave it; without secrets, since people read it.

    Raises:
        OutputMismatch: it is bound to another recipe, whose differing fields are named, or has another schema version.
    """
    attempt = uuid.uuid4().hex
    record = {
        "schema_version": SCHEMA_VERSION,
        "attempt": attempt,
        "recipe": {"fingerprint": recipe.fingerprint, "fields": recipe.fields},
        "about": about,
    }
    data = json.dumps(record, indent=2, ensure_ascii=False).encode()
    # Look first, so that resuming an output needs no right to write run.json again.
    if store.exists(RUN) or put_if_absent(store, RUN, data, attempt) is WriteResult.EXISTS:
        there = read_run(store)
        if there.fingerprint != recipe.fingerprint:
            here = json.loads(data)["recipe"]["fields"]
            raise OutputMismatch(_explain(store, there, recipe.fingerprint, here))
        return there
    return _record(json.loads(data))


def read_run(store: Store) -> RunRecord:
    """Return what `run.json` says.

    Raises:
        ConfigError: there is none, so this is no output.
        OutputMismatch: of another schema version.
        StoreError: it is not what `claim_run` writes.
    """
    try:
        data = store.get(RUN)
    except FileNotFoundError as err:
        raise ConfigError(f"{store.url}: no {RUN} there, so no output of JoyFleet; give the output's URL") from err
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
    return RunRecord(fingerprint=str(recipe["fingerprint"]), fields=dict(recipe["fields"]), about=dict(record["about"]))


def _explain(store: Store, there: RunRecord, fingerprint: str, fields: Mapping[str, Any]) -> str:
    found = list(differences(there.fields, fields)) or ["no field; another version of JoyFleet made the fingerprint"]
    more = [f"... and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    listed = "\n  ".join(found[:SHOWN] + more)
    return (
        f"{store.url}: bound to recipe {there.fingerprint}, and this run's is {fingerprint}. They differ in\n"
        f"  {listed}\n"
        "Change the config back, or give the run an output of its own"
    )


def differences(there: object, here: object, at: str = "") -> Iterator[str]:
    """Yield one line for each leaf of two JSON values that differs, `captions.0.length: 'long' there, 'short' here`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        yield from _compared(dict(there), dict(here), at)
    elif isinstance(there, list) and isinstance(here, list):
        yield from _compared(dict(enumerate(there)), dict(enumerate(here)), at)
    elif there != here or type(there) is not type(here):
        yield f"{at}: {there!r} there, {here!r} here"


def _compared(there: dict[Any, Any], here: dict[Any, Any], at: str) -> Iterator[str]:
    for key in there | here:
        name = f"{at}.{key}" if at else str(key)
        if key not in here:
            yield f"{name}: {there[key]!r} there, absent here"
        elif key not in there:
            yield f"{name}: absent there, {here[key]!r} here"
        else:
            yield from differences(there[key], here[key], name)
