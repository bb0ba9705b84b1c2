"""What killed writers and zombies left behind, and nothing else. captions/ is never touched.

An output is data, perhaps of someone else: what is removed has the name of a file that JoyFleet itself makes there
and ends, and lies in the output's own folders, not behind a link.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.ledger import layout
from pipeline.ledger.footer import RunIdentity
from pipeline.ledger.fragments import Invalid, read_fragment_info
from pipeline.ledger.shard_plan import Plan
from pipeline.storage import Entry, Store
from pipeline.storage.local import TEMPORARY


@dataclass(slots=True)
class Cleaned:
    """What was found where leftovers lie. Paths are sorted."""

    removed: list[str] = field(default_factory=list[str])
    left: dict[str, str] = field(default_factory=dict[str, str])
    """Files that are none of JoyFleet's leftovers, with the reason to leave them."""


def clean(store: Store, run: RunIdentity, plan: Plan, *, dry_run: bool = False) -> Cleaned:
    """Remove leftovers; with `dry_run` only say which.

    Safe beside a live run: a local writer whose temporary file goes begins again, and fragments that
    count are kept.
    """
    found = Cleaned()
    for entry in sorted(_leftovers(store, run, plan), key=lambda entry: entry.path):
        reason = _reason_to_leave(entry)
        if reason:
            found.left[entry.path] = reason
        else:
            found.removed.append(entry.path)
    if not dry_run:
        store.delete(found.removed)
    return found


def _leftovers(store: Store, run: RunIdentity, plan: Plan) -> Iterator[Entry]:
    yield from store.list(TEMPORARY)
    committed = {layout.shard_of_committed(entry.path) for entry in store.list(layout.CAPTIONS)}
    for entry in store.list(layout.STAGING):
        shard = layout.shard_of_fragment(entry.path)
        planned = plan.shards.get(shard) if shard and shard not in committed else None
        if entry.linked or planned is None or isinstance(read_fragment_info(store, entry.path, run, planned), Invalid):
            yield entry


def _reason_to_leave(entry: Entry) -> str | None:
    if entry.linked:
        return "it is a link, or lies behind one"
    if layout.is_temporary(entry.path) or layout.shard_of_fragment(entry.path):
        return None
    return "no file of JoyFleet has such a name"
