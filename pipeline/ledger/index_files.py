"""The files of an index: one per source shard, created by one put-if-absent, bound to the shard's size and etag.

An index is an output of its own: `run.json` binds it to what was asked for, the plan fixes its shards, and
`index/<shard>.parquet` has one row per image. Nobody edits it: a shard that changed needs a new index.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError, OutputMismatch, StoreError
from pipeline.ledger import layout
from pipeline.ledger.caption_table import rows_sha256
from pipeline.ledger.run_record import differences, read_run
from pipeline.ledger.shard_plan import Plan, read_plan
from pipeline.storage import Store, WriteResult, open_store, put_if_absent
from pipeline.storage.parquet import decode_parquet, encode_parquet, read_metadata
from schemas.index import INDEX_DIGESTED, INDEX_SCHEMA, INDEX_VERSION, Hash, IndexKey
from schemas.shard import Shard

log = logging.getLogger(__name__)

ABOUT = "index"
"""Key of `about` in `run.json` that makes an output an index; it holds the config of the first run."""

EVERYTHING = "*"
"""The entry of `source.metadata_fields` that keeps all fields."""

SHOWN = 3
"""Shards in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that was started, perhaps not finished."""

    store: Store
    fingerprint: str
    fields: Mapping[str, Any]
    """What the fingerprint is computed from: `hashes`, `images` and `rows`."""
    plan: Plan

    @property
    def hashes(self) -> frozenset[Hash]:
        """What was hashed; the columns of the others are null."""
        return frozenset(map(Hash, self.fields["hashes"]))

    def has_fields(self, names: Iterable[str]) -> bool:
        """Whether its rows have these metadata fields, where the source has them."""
        kept: Sequence[str] = self.fields["rows"]["metadata_fields"]
        return EVERYTHING in kept or set(names) <= set(kept)

    def quarantined(self) -> frozenset[str]:
        """Planned shards that could not be read."""
        shards = (layout.shard_of_quarantined(entry.path) for entry in self.store.list(layout.QUARANTINE))
        return frozenset(shard for shard in shards if shard and shard in self.plan.shards)

    def indexed(self) -> frozenset[str]:
        """Planned shards that have their file: one listing."""
        shards = (layout.shard_of_indexed(entry.path) for entry in self.store.list(layout.INDEX))
        return frozenset(shard for shard in shards if shard and shard in self.plan.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFooter:
    """The footer of a file of an index."""

    fingerprint: str
    shard: str
    size: int
    etag: str
    attempt: str
    rows_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCommit:
    """The file of a shard, and whether this commit wrote it. Counts are those of the file that exists."""

    shard: str
    outcome: WriteResult
    num_images: int
    num_errors: int
    """Images that cannot be read."""
    num_bytes: int
    """Of the encoded images."""


def open_index(url: str) -> Index:
    """Return the index at a URL: run.json and its plan are read.

    Raises:
        ConfigError: the URL has no index.
        OutputMismatch: of another schema version.
        StoreError: run.json or the plan is damaged.
    """
    store = open_store(url)
    record = read_run(store)
    if ABOUT not in record.about:
        raise ConfigError(
            f"{url}: is not an index of images; make one with `joyfleet index SOURCE OUTPUT`, and give its URL"
        )
    return Index(store=store, fingerprint=record.fingerprint, fields=record.fields, plan=read_plan(store))


OF_A_HEADER = ("formats", "max_pixels", "max_bytes", "apply_exif_orientation")
"""Keys of `images` that say what is known of an image, and which way up it is."""


def refuse_other_settings(index: Index, source: Mapping[str, Any], images: Mapping[str, Any]) -> None:
    """Refuse an index whose rows would be others with the settings of a job.

    Args:
        index: the index.
        source: the `source` of the job, as JSON.
        images: the `images` of the job, as JSON.

    Raises:
        OutputMismatch: names the keys that differ.
    """
    stored = {
        "source": {name: index.fields["rows"][name] for name in OF_A_ROW},
        "images": {name: index.fields["images"][name] for name in OF_A_HEADER},
    }
    current = {
        "source": {name: source[name] for name in OF_A_ROW},
        "images": {name: images[name] for name in OF_A_HEADER},
    }
    lines = list(differences(stored, json.loads(json.dumps(current))))
    if lines:
        raise OutputMismatch(
            f"{index.store.url}: the index was made with other settings than those of this job. They differ in\n  "
            + "\n  ".join(lines)
            + "\nMake an index with the settings of the job: `joyfleet index JOB_FILE OUTPUT`"
        )


OF_A_ROW = ("images_per_shard", "image_column")
"""Keys of `source` that say which images are rows."""


def refuse_other_source(index: Index, shards: Sequence[Shard]) -> None:
    """Refuse an index that does not describe these shards as they are now; one that it could not read is accepted.

    Raises:
        OutputMismatch: names shards that it does not have, that have changed since, or that are not indexed yet.
    """
    done = index.indexed() | index.quarantined()
    faults = [fault for shard in shards if (fault := _fault(index, done, shard))]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise OutputMismatch(
            f"{index.store.url}: is not an index of this source: of {len(shards)} shards {len(faults)} do not match: "
            f"{'; '.join(faults[:SHOWN])}{more}. Run `joyfleet index` on the source: with --extend if it has grown, "
            "into a new output if shards have changed"
        )


def _fault(index: Index, done: frozenset[str], shard: Shard) -> str | None:
    planned = index.plan.shards.get(shard.path)
    if planned is None:
        return f"{shard.path} is not in it"
    if (planned.size, planned.etag) != (shard.size, shard.etag):
        return (
            f"{shard.path} was {planned.size} bytes, etag {planned.etag}, when it was indexed, and is {shard.size}, "
            f"etag {shard.etag}"
        )
    return None if shard.path in done else f"{shard.path} has no rows in it yet"


def existing_rows(store: Store, fingerprint: str, shard: Shard, attempt: str) -> IndexCommit | None:
    """Return the file of a shard, if there is one, and whether this attempt wrote it; raises as `read_rows`."""
    if not store.exists(layout.index_path(shard.path)):
        return None
    footer, table = _read(store, fingerprint, shard)
    return _commit_of(shard, WriteResult.OURS if footer.attempt == attempt else WriteResult.EXISTS, table)


def commit_rows(store: Store, fingerprint: str, shard: Shard, table: pa.Table, attempt: str) -> IndexCommit:
    """Create the file of a shard; if another run has created it, return the counts of that one.

    Args:
        store: the output.
        fingerprint: of the index.
        shard: as planned.
        table: all of its rows, in order.
        attempt: 32 hex digits, the same when the same work is repeated: a file whose writer died is then OURS.

    Raises:
        OutputMismatch: the existing file is of another index or of another state of the shard.
        StoreError: as `put_if_absent`, or the existing file is damaged.
    """
    metadata = {
        IndexKey.INDEX_VERSION: INDEX_VERSION,
        IndexKey.ATTEMPT: attempt,
        IndexKey.FINGERPRINT: fingerprint,
        IndexKey.SHARD: shard.path,
        IndexKey.SIZE: str(shard.size),
        IndexKey.ETAG: shard.etag,
        IndexKey.ROWS_SHA256: rows_sha256(table, INDEX_DIGESTED),
    }
    data = encode_parquet(table, {str(key): value for key, value in metadata.items()})
    outcome = put_if_absent(store, layout.index_path(shard.path), data, attempt)
    if outcome is WriteResult.EXISTS:
        _, table = _read(store, fingerprint, shard)
    log.info("shard=%s indexed rows=%d bytes=%d outcome=%s", shard.path, table.num_rows, len(data), outcome)
    return _commit_of(shard, outcome, table)


def _commit_of(shard: Shard, outcome: WriteResult, table: pa.Table) -> IndexCommit:
    return IndexCommit(
        shard=shard.path,
        outcome=outcome,
        num_images=table.num_rows,
        num_errors=table.num_rows - table["reason"].null_count,
        num_bytes=sum(size for size in table["bytes"].to_pylist() if size is not None),
    )


def read_rows(store: Store, fingerprint: str, shard: Shard) -> pa.Table:
    """Return the rows of a shard, in order, after a check that they are of this state of the shard.

    Raises:
        FileNotFoundError: the shard is not indexed.
        OutputMismatch: the file is of another index, or of another state of the shard.
        StoreError: it is damaged.
    """
    return _read(store, fingerprint, shard)[1]


def _read(store: Store, fingerprint: str, shard: Shard) -> tuple[IndexFooter, pa.Table]:
    path = layout.index_path(shard.path)
    data = store.get(path)
    try:
        footer = read_index_footer(data)
        table = decode_parquet(data, INDEX_SCHEMA)
    except ValueError as err:
        raise StoreError(f"{store.url}/{path}: {err}; remove the file and run `joyfleet index` again") from err
    fault = footer_fault(footer, fingerprint, shard)
    if fault:
        raise OutputMismatch(f"{store.url}/{path}: {fault}; index the source as it is now into a new output")
    return footer, table


def iter_rows(index: Index) -> Iterator[pa.Table]:
    """Yield the rows of each indexed shard, in the plan's order; raises as `read_rows`."""
    indexed = index.indexed()
    for shard in index.plan.shards.values():
        if shard.path in indexed:
            yield read_rows(index.store, index.fingerprint, shard)


def footer_fault(footer: IndexFooter, fingerprint: str, shard: Shard) -> str | None:
    """Say in what a footer differs from what its file should have, or None."""
    pairs = {
        "fingerprint": (footer.fingerprint, fingerprint),
        "shard": (footer.shard, shard.path),
        "size": (footer.size, shard.size),
        "etag": (footer.etag, shard.etag),
    }
    differing = [f"{name} is {own!r}, expected {wanted!r}" for name, (own, wanted) in pairs.items() if own != wanted]
    return "; ".join(differing) or None


def read_index_footer(data: bytes) -> IndexFooter:
    """Return the footer of a whole file.

    Raises:
        ValueError: the file is cut, of another version, or not of an index; says which.
    """
    metadata, _ = read_metadata(data)
    version = _value(metadata, IndexKey.INDEX_VERSION)
    if version != INDEX_VERSION:
        raise ValueError(f"index version {version!r}; this JoyFleet reads only {INDEX_VERSION!r}")
    return IndexFooter(
        fingerprint=_value(metadata, IndexKey.FINGERPRINT),
        shard=_value(metadata, IndexKey.SHARD),
        size=int(_value(metadata, IndexKey.SIZE)),
        etag=_value(metadata, IndexKey.ETAG),
        attempt=_value(metadata, IndexKey.ATTEMPT),
        rows_sha256=_value(metadata, IndexKey.ROWS_SHA256),
    )


def _value(metadata: Mapping[bytes, bytes], key: IndexKey) -> str:
    value = metadata.get(key.encode())
    if value is None:
        raise ValueError(f"no {key} in the footer")
    return value.decode(errors="replace")
