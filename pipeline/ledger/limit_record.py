"""limit.json: the shards that `source.limit` needs, and where the last of its rows is.

It is created by one put-if-absent before the plan. So every run and every driver of an output has the same rows,
although counting them reads the source.
"""

import json
import uuid
from collections.abc import Callable, Mapping

from pipeline.errors import StoreError
from pipeline.ledger.layout import LIMIT
from pipeline.storage import Store, WriteResult, put_if_absent

EndRows = Mapping[str, int | None]
"""Path of each planned shard to the number of the row from which on its rows are beyond the limit; None: none is."""


def claim_limit(store: Store, count: Callable[[], EndRows]) -> EndRows:
    """Return the record of an output, or fix it with what `count` returns.

    Raises:
        StoreError: it is damaged.
    """
    existing = read_limit(store)
    if existing is not None:
        return existing
    attempt = uuid.uuid4().hex
    end_rows = count()
    data = json.dumps({"attempt": attempt, "end_rows": dict(end_rows)}, indent=1, ensure_ascii=False).encode()
    if put_if_absent(store, LIMIT, data, attempt) is WriteResult.EXISTS:
        return read_limit(store) or {}
    return end_rows


def read_limit(store: Store) -> EndRows | None:
    """Return the record; None if the output has none."""
    try:
        data = store.get(LIMIT)
    except FileNotFoundError:
        return None
    try:
        end_rows: dict[str, int | None] = json.loads(data)["end_rows"]
        return {str(path): None if end is None else int(end) for path, end in end_rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise StoreError(f"{store.url}/{LIMIT}: damaged ({err!r}); restore it, or start a new output") from err
