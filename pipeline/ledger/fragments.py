"""Fragments: caption rows of an unfinished shard, staged so that a failure loses what was in flight, not the shard.

A fragment has a unique name and is written whole or not at all. It is valid only if its footer says that it belongs to
this run and to the shard as it is now. An invalid one is logged and treated as absent.
"""

import logging
import uuid
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.ledger.caption_table import Identities, check_caption_rows, examples, from_parquet, identities, to_parquet
from pipeline.ledger.footer import Footer, RunIdentity, read_footer
from pipeline.ledger.layout import first_row_of_fragment, fragment_path, shard_of_fragment, staging_folder
from pipeline.storage import Store
from schemas.shard import Shard

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FragmentInfo:
    """A valid fragment."""

    path: str
    num_images: int
    """Of the whole shard, as the writer of the fragment counted them."""
    rows: Identities
    """Row numbers of the images that it covers with all their slots, ascending."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """An invalid fragment, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """A valid fragment with its caption rows."""

    info: FragmentInfo
    table: pa.Table


def write_fragment(store: Store, run: RunIdentity, shard: Shard, num_images: int, table: pa.Table) -> str:
    """Store caption rows of some images of a shard, all slots of each; return the fragment's path.

    Raises:
        PipelineError: the rows are not caption rows, or not whole images of this shard and this recipe.
    """
    table = check_caption_rows(table, shard.path)
    for name, value in (("shard", shard.path), ("recipe", run.recipe)):
        others = sorted(set(map(str, table[name].unique().to_pylist())) - {value})
        if others:
            raise PipelineError(f"shard {shard.path}: rows with {name} {others[0]!r}; allowed: {value!r}")
    row_identities = identities(table, run.slots)
    rows = _whole_images(row_identities, run, shard, num_images)
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
    store.put(path, to_parquet(table.take(pa.array(np.argsort(row_identities))), footer))
    return path


def _whole_images(row_identities: Identities, run: RunIdentity, shard: Shard, num_images: int) -> Identities:
    if not len(row_identities):
        raise ValueError(f"shard {shard.path}: a fragment without rows")
    num_slots = len(run.slots)
    rows = np.unique(row_identities // num_slots)
    if row_identities.min() < 0 or rows[-1] >= num_images:
        raise PipelineError(
            f"shard {shard.path}: caption rows of an image or slot that the shard does not have; "
            f"allowed: rows 0..{num_images - 1}, slots {list(run.slots)}"
        )
    expected = (rows[:, None] * num_slots + np.arange(num_slots)).ravel()
    if not np.array_equal(np.sort(row_identities), expected):
        missing = np.setdiff1d(expected, row_identities)
        raise PipelineError(
            f"shard {shard.path}: {len(row_identities)} caption rows are not each of {list(run.slots)} once for "
            f"{len(rows)} images; missing {examples(missing, run.slots) or 'none'}"
        )
    return rows


def _stretches(rows: Identities) -> tuple[tuple[int, int], ...]:
    """Run-length form of ascending rows."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return tuple((int(part[0]), len(part)) for part in parts)


def read_fragment_info(store: Store, path: str, run: RunIdentity, shard: Shard) -> FragmentInfo | Invalid:
    """Return which images a fragment covers, or why it is invalid.

    Reads and checks the whole file, not only the footer: a fragment that passes here must not be refused at the
    commit, in every run again. It costs little: with 64 caption rows the footer is most of the bytes.
    """
    fragment = read_fragment(store, path, run, shard)
    return fragment if isinstance(fragment, Invalid) else fragment.info


def read_fragment(store: Store, path: str, run: RunIdentity, shard: Shard) -> Fragment | Invalid:
    """Like `read_fragment_info`, with the caption rows."""
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
        return _invalid(path, f"it holds rows {_stretches(rows)}, its footer says {footer.rows}")
    return Fragment(FragmentInfo(path, footer.num_images, rows), table)


def staged_within(
    store: Store, run: RunIdentity, shard: Shard, num_images: int, rows: Collection[int]
) -> list[Fragment]:
    """Return valid fragments of a shard whose images are all among `rows`, no image twice: one listing."""
    left = set(rows)
    listed = [entry.path for entry in store.list(staging_folder(shard.path))]
    fragments: list[Fragment] = []
    for path in sorted(path for path in listed if shard_of_fragment(path) == shard.path):
        if first_row_of_fragment(path) not in left:
            continue
        fragment = read_fragment(store, path, run, shard)
        if isinstance(fragment, Invalid) or fragment.info.num_images != num_images:
            continue
        if left.issuperset(fragment.info.rows.tolist()):
            left.difference_update(fragment.info.rows.tolist())
            fragments.append(fragment)
    return fragments


def _invalid(path: str, reason: str) -> Invalid:
    log.warning("fragment=%s is invalid: %s", path, reason)
    return Invalid(path, reason)
