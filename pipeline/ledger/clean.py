"""What killed writers and zombies left behind, and nothing else. captions/ is never touched."""

from collections.abc import Iterator

from pipeline.ledger import layout
from pipeline.ledger.footer import RunFacts
from pipeline.ledger.fragments import Invalid, read_fragment_facts
from pipeline.ledger.plan import Plan
from pipeline.storage import Store
from pipeline.storage.local import TEMPORARY


def clean(store: Store, run: RunFacts, plan: Plan, *, dry_run: bool = False) -> list[str]:
    """Remove leftovers and return their paths; with `dry_run` only return them.

    Safe beside a live run: a local writer whose temporary file goes begins again, and fragments that
    count are kept.
    """
    found = sorted(_leftovers(store, run, plan))
    if not dry_run:
        store.delete(found)
    return found


def _leftovers(store: Store, run: RunFacts, plan: Plan) -> Iterator[str]:
    yield from (entry.path for entry in store.list(TEMPORARY))
    committed = {layout.shard_of_committed(entry.path) for entry in store.list(layout.CAPTIONS)}
    for entry in store.list(layout.STAGING):
        shard = layout.shard_of_fragment(entry.path)
        planned = plan.shards.get(shard) if shard and shard not in committed else None
        if planned is None or isinstance(read_fragment_facts(store, entry.path, run, planned), Invalid):
            yield entry.path
