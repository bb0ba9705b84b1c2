"""The commit of a shard: its file appears whole under captions/, by one put-if-absent.

A kill before the put leaves fragments, which the next run merges again. A kill after it leaves a committed shard with
staged files that no run reads; `clean` removes them. Nothing is removed before the committed file is known to exist.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import OutputMismatch, PipelineError, StoreError
from pipeline.ledger.caption_table import concat_rows, examples, identities, to_parquet, with_contents
from pipeline.ledger.footer import Footer, RunIdentity, read_footer
from pipeline.ledger.fragments import Fragment, Invalid, read_fragment
from pipeline.ledger.layout import committed_path, shard_of_fragment, staging_folder
from pipeline.storage import Store, WriteResult, put_if_absent
from schemas.shard import Shard

log = logging.getLogger(__name__)

READERS = 16
"""A GET takes 30 to 50 ms on S3, and a shard of 10,000 images has some 300 fragments of 35 kB: 1 s and not 12."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """The committed file of a shard, and whether this commit wrote it. Counts are those of the file that exists."""

    shard: str
    outcome: WriteResult
    num_images: int
    num_rows: int
    """Caption rows."""
    statuses: Mapping[str, int]
    """Caption rows by status."""
    skipped: Mapping[str, int]
    """Skipped caption rows by condition."""
    num_bytes: int

    @property
    def won(self) -> bool:
        return self.outcome is not WriteResult.EXISTS


def commit_shard(
    store: Store, run: RunIdentity, shard: Shard, num_images: int, fragments: Sequence[str], attempt: str | None = None
) -> CommitResult:
    """Merge the fragments of a finished shard into its committed file, then remove the shard's staging.

    An image that several fragments cover is taken, with all its slots, from the first of them by name.

    `attempt` is a uuid4 hex, by default a new one. A caller that may repeat the commit passes the same one again:
    then a commit whose process died after the file had appeared is recognised as OURS.

    Raises:
        PipelineError: the fragments are not exactly the images 0..num_images-1, each with every slot.
        OutputMismatch: the existing file belongs to another shard or recipe.
        StoreError: as `put_if_absent`; staging is untouched then.
    """
    path = committed_path(shard.path)
    wanted = Footer(
        run=run,
        shard=shard.path,
        size=shard.size,
        etag=shard.etag,
        num_images=num_images,
        attempt=attempt or uuid.uuid4().hex,
    )
    # A put-if-absent is refused only after the upload, so look first: one HEAD instead of a merge and some MB.
    if store.exists(path):
        return existing_commit(store, wanted, shard)
    try:
        table = _merged(store, run, shard, num_images, fragments)
    except PipelineError:
        # A fragment may be gone because another run has committed the shard since and removed its staging.
        if store.exists(path):
            return existing_commit(store, wanted, shard)
        raise
    return _put(store, wanted, shard, table)


def _put(store: Store, wanted: Footer, shard: Shard, table: pa.Table) -> CommitResult:
    footer = with_contents(wanted, table)
    data = to_parquet(table, footer)
    outcome = put_if_absent(store, committed_path(shard.path), data, footer.attempt)
    if outcome is WriteResult.EXISTS:
        return existing_commit(store, wanted, shard)
    remove_staging(store, shard.path)
    log.info("shard=%s committed rows=%d bytes=%d outcome=%s", shard.path, table.num_rows, len(data), outcome)
    return result_of(outcome, footer, table.num_rows, len(data))


def num_images_committed(store: Store, run: RunIdentity, shard: Shard) -> int | None:
    """Return the number of images of a committed shard, or None if it is not committed.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
    """
    try:
        data = store.get(committed_path(shard.path))
    except FileNotFoundError:
        return None
    return checked_footer(store, data, run, shard)[0].num_images


def checked_footer(store: Store, data: bytes, run: RunIdentity, shard: Shard) -> tuple[Footer, int]:
    """Return the footer of a committed file and its number of caption rows.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
    """
    path = committed_path(shard.path)
    try:
        footer, num_rows = read_footer(data)
    except ValueError as err:
        raise _foreign_file(store, path, str(err)) from err
    fault = footer.mismatch(run, shard)
    if fault or footer.statuses is None:
        raise _foreign_file(store, path, fault or "a fragment, not a committed file")
    return footer, num_rows


def existing_commit(store: Store, wanted: Footer, shard: Shard) -> CommitResult:
    """Check that the existing file is this shard's, remove the shard's staging, and say which write made the file."""
    path = committed_path(shard.path)
    data = store.get(path)
    footer, num_rows = checked_footer(store, data, wanted.run, shard)
    if footer.num_images != wanted.num_images:
        raise _foreign_file(store, path, f"written for {footer.num_images} images, expected {wanted.num_images}")
    remove_staging(store, shard.path)
    outcome = WriteResult.OURS if footer.attempt == wanted.attempt else WriteResult.EXISTS
    log.info("shard=%s is committed already, attempt=%s outcome=%s", shard.path, footer.attempt, outcome)
    return result_of(outcome, footer, num_rows, len(data))


def result_of(outcome: WriteResult, footer: Footer, num_rows: int, num_bytes: int) -> CommitResult:
    """Return the result of a commit, by the footer of the file that exists."""
    return CommitResult(
        shard=footer.shard,
        outcome=outcome,
        num_images=footer.num_images,
        num_rows=num_rows,
        statuses=footer.statuses or {},
        skipped=footer.skipped or {},
        num_bytes=num_bytes,
    )


def _foreign_file(store: Store, path: str, fault: str) -> OutputMismatch:
    return OutputMismatch(f"{store.url}/{path}: {fault}; nothing was removed. Give the run its own output")


def remove_staging(store: Store, shard: str) -> None:
    """Remove every fragment of a committed shard, also those of other runs.

    If the store fails this is a warning: nothing reads the fragments any more, and `clean` removes them later.
    """
    try:
        listed = store.list(staging_folder(shard))
        store.delete([entry.path for entry in listed if shard_of_fragment(entry.path) == shard])
    except StoreError as err:
        log.warning("shard=%s is committed; its staging stays until `joyfleet clean`: %s", shard, err)


def read_all(store: Store, run: RunIdentity, shard: Shard, num_images: int, fragments: Sequence[str]) -> list[Fragment]:
    """Return the fragments by name.

    Raises:
        PipelineError: a fragment is invalid, or was written for another number of images.
    """
    paths = sorted(set(fragments))
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(lambda path: read_fragment(store, path, run, shard), paths))
    fragments_read: list[Fragment] = []
    for path, fragment in zip(paths, read, strict=True):
        if isinstance(fragment, Invalid):
            raise PipelineError(f"shard {shard.path}: fragment {path} is invalid: {fragment.reason}; run again")
        if fragment.info.num_images != num_images:
            raise PipelineError(
                f"shard {shard.path}: fragment {path} was written for a shard of {fragment.info.num_images} images, "
                f"expected {num_images}; restore the shard, or run `joyfleet clean` and run again"
            )
        fragments_read.append(fragment)
    return fragments_read


def _merged(store: Store, run: RunIdentity, shard: Shard, num_images: int, fragments: Sequence[str]) -> pa.Table:
    """All caption rows of the shard, by row, then by slot."""
    merged_images = np.zeros(num_images, dtype=np.bool_)
    parts: list[pa.Table] = []
    for fragment in read_all(store, run, shard, num_images, fragments):
        is_new = ~merged_images[fragment.table["row"].to_numpy()]
        parts.append(fragment.table.filter(pa.array(is_new)))
        merged_images[fragment.info.rows] = True
    merged = concat_rows(parts)
    row_identities = identities(merged, run.slots)
    times = np.bincount(row_identities, minlength=num_images * len(run.slots))
    missing, double = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
    if len(missing) or len(double):
        raise PipelineError(
            f"shard {shard.path}: {len(fragments)} fragments do not hold each of {num_images} images once with each of "
            f"{list(run.slots)}: {len(missing)} caption rows missing ({examples(missing, run.slots)}), {len(double)} "
            f"double ({examples(double, run.slots)}); not committed, nothing was removed. Run again"
        )
    return merged.take(pa.array(np.argsort(row_identities))).combine_chunks()
