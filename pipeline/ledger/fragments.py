"""Rows of an unfinished shard, kept so that a fault costs what was in flight and not the shard.

A fragment has a name of its own, is whole or not there, and counts only if its footer says that it
belongs to this run and to the shard as it is now. Anything else is as good as absent, and said so.
"""

import logging
import uuid
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.ledger.caption_table import Identities, examples, fitted, from_parquet, identities, to_parquet
from pipeline.ledger.footer import Footer, RunIdentity, read_footer
from pipeline.ledger.layout import fragment_path
from pipeline.storage import Store
from schemas.shard import Shard

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FragmentInfo:
    """A fragment that counts."""

    path: str
    num_images: int
    """Rows of the whole shard, as the writer found them."""
    rows: Identities
    """Rows of the shard that it covers with all their slots, ascending."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """A fragment that does not count, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """A fragment that counts, read."""

    facts: FragmentInfo
    table: pa.Table


def write_fragment(store: Store, run: RunIdentity, shard: Shard, num_images: int, table: pa.Table) -> str:
    """Store caption rows of some images of a shard, all slots of each; return the fragment's path.

    Raises:
        PipelineError: the rows are not caption rows, or not whole images of this shard and this recipe.
    """
    table = fitted(table, shard.path)
    for name, value in (("shard", shard.path), ("recipe", run.recipe)):
        others = sorted(set(map(str, table[name].unique().to_pylist())) - {value})
        if others:
            raise PipelineError(f"shard {shard.path}: rows with {name} {others[0]!r}; allowed: {value!r}")
    found = identities(table, run.slots)
    rows = _whole_images(found, run, shard, num_images)
    footer = Footer(
        run=run,
        shard=shard.path,
        size=shard.size,
        etag=shard.etag,
        num_images=num_images,
        attempt=uuid.uuid4().hex,
        rows=_stretches(rows),
    )
    path = fragment_path(shard.path, int(rows[0]), footer.attempt)
    store.put(path, to_parquet(table.take(pa.array(np.argsort(found))), footer))
    return path


def _whole_images(found: Identities, run: RunIdentity, shard: Shard, num_images: int) -> Identities:
    if not len(found):
        raise ValueError(f"shard {shard.path}: a fragment without rows")
    num_slots = len(run.slots)
    rows = np.unique(found // num_slots)
    if found.min() < 0 or rows[-1] >= num_images:
        raise PipelineError(
            f"shard {shard.path}: caption rows of a foreign image or slot; "
            f"allowed: rows 0..{num_images - 1}, slots {list(run.slots)}"
        )
    wanted = (rows[:, None] * num_slots + np.arange(num_slots)).ravel()
    if not np.array_equal(np.sort(found), wanted):
        missing = np.setdiff1d(wanted, found)
        raise PipelineError(
            f"shard {shard.path}: {len(found)} caption rows are not each of {list(run.slots)} once for "
            f"{len(rows)} images; missing {examples(missing, run.slots) or 'none'}"
        )
    return rows


def _stretches(rows: Identities) -> tuple[tuple[int, int], ...]:
    """Run-length form of ascending rows."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return tuple((int(part[0]), len(part)) for part in parts)


def read_fragment_info(store: Store, path: str, run: RunIdentity, shard: Shard) -> FragmentInfo | Invalid:
    """Say which rows a fragment holds, or why it does not count.

    Reads and checks all of it, not the footer alone, so that what passes here is not refused at the
    commit, again in every run. It costs little: of 64 caption rows the footer is most of the bytes.
    """
    fragment = read_fragment(store, path, run, shard)
    return fragment if isinstance(fragment, Invalid) else fragment.facts


def read_fragment(store: Store, path: str, run: RunIdentity, shard: Shard) -> Fragment | Invalid:
    """Like `read_fragment_facts`, with the caption rows."""
    try:
        data = store.get(path)
    except FileNotFoundError:
        return _invalid(path, "is gone: another run committed the shard, or `clean` removed it")
    try:
        footer, _ = read_footer(data)
        mismatch = footer.mismatch(run, shard)
        if mismatch:
            return _invalid(path, mismatch)
        table = from_parquet(data)
        rows = _whole_images(identities(table, run.slots), run, shard, footer.num_images)
    except (ValueError, PipelineError) as err:
        return _invalid(path, str(err))
    if footer.rows != _stretches(rows):
        return _invalid(path, f"rows {_stretches(rows)}, and its footer says {footer.rows}")
    return Fragment(FragmentInfo(path, footer.num_images, rows), table)


def _invalid(path: str, reason: str) -> Invalid:
    log.warning("fragment=%s does not count: %s", path, reason)
    return Invalid(path, reason)
