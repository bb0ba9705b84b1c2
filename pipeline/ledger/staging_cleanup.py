"""Removes what killed or outdated writers left in an output, and nothing else. captions/ is never touched.

A file is removed only if it has a name that JoyFleet gives to temporary files, and is in the output's own folders,
not behind a link: everything else may be user data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.ledger import layout
from pipeline.ledger.duplicates_record import read_record
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import Invalid, read_fragment_info
from pipeline.ledger.shard_plan import Plan
from pipeline.storage import Entry, Store
from pipeline.storage.local import TEMPORARY


@dataclass(slots=True)
class Cleaned:
    """What `clean` removed and what it kept. Paths are sorted."""

    removed: list[str] = field(default_factory=list[str])
    kept: dict[str, str] = field(default_factory=dict[str, str])
    """Files that are not JoyFleet's leftovers, with the reason to keep them."""


def clean(store: Store, run: RunIdentity, plan: Plan, *, dry_run: bool = False) -> Cleaned:
    """Remove leftovers; with `dry_run` only list them.

    Safe beside a live run: a local writer whose temporary file disappears starts again, and valid fragments are kept.
    """
    cleaned = Cleaned()
    for entry in sorted(_leftovers(store, run, plan), key=lambda entry: entry.path):
        reason = _reason_to_keep(entry)
        if reason:
            cleaned.kept[entry.path] = reason
        else:
            cleaned.removed.append(entry.path)
    if not dry_run:
        store.delete(cleaned.removed)
    return cleaned


def _leftovers(store: Store, run: RunIdentity, plan: Plan) -> Iterator[Entry]:
    yield from store.list(TEMPORARY)
    committed = {layout.shard_of_committed(entry.path) for entry in store.list(layout.CAPTIONS)}
    for entry in store.list(layout.STAGING):
        shard = layout.shard_of_fragment(entry.path)
        planned = plan.shards.get(shard) if shard and shard not in committed else None
        if entry.linked or planned is None or isinstance(read_fragment_info(store, entry.path, run, planned), Invalid):
            yield entry
    yield from _unnamed_followers(store)


def _unnamed_followers(store: Store) -> Iterator[Entry]:
    """Files of followers that the record of their generation does not name; without one, a live run may need them."""
    named: dict[int, frozenset[str] | None] = {}
    for entry in store.list(layout.DUPLICATES):
        number = layout.generation_of_followers(entry.path)
        if number is None:
            continue
        if number not in named:
            record = read_record(store, number)
            named[number] = None if record is None else frozenset(record.files.values())
        used = named[number]
        if used is not None and entry.path not in used:
            yield entry


def _reason_to_keep(entry: Entry) -> str | None:
    if entry.linked:
        return "it is a link, or behind a link"
    if layout.is_temporary(entry.path) or layout.shard_of_fragment(entry.path):
        return None
    if layout.generation_of_followers(entry.path) is not None:
        return None
    return "its name is not one of JoyFleet's temporary files"
