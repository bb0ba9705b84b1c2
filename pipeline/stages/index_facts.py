"""What an index knows of the rows of a shard, so that a selection is decided before an image is read.

The result is that of reading the images: an index holds what their headers say, and a row whose header could not be
read is left to the reader, which makes it a failed row.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import ImagesConfig, SourceConfig
from pipeline.ledger.index_files import Index, open_index, read_rows, refuse_other_settings, refuse_other_source
from pipeline.readers import format_of
from pipeline.selection import JSON, RowFacts, Selection, Skip
from pipeline.storage import Store
from schemas.shard import Shard

_COLUMNS = ["row", "width", "height", "format", "bytes", "metadata", "reason"]


@dataclass(frozen=True, slots=True)
class DecidedRow:
    """A row of an index, and what a selection decides about it."""

    row: int
    fields: dict[str, JSON]
    """Its metadata."""
    skip: Skip | None
    is_readable: bool
    """Whether its image can be read, as far as the index has read it. If not, no request is sent for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFacts:
    """The rows of an index; pickles."""

    store: Store
    fingerprint: str
    has_fields: bool
    """Whether it has every metadata field that decides about a row."""

    def of_images(self, shard: Shard) -> dict[int, RowFacts]:
        """Return size, format and length of the images of a shard whose headers can be read, by row.

        Raises:
            OutputMismatch: the shard was indexed in another state.
            StoreError: its file is damaged.
        """
        rows = self._rows(shard) or []
        return {row["row"]: _facts(row, {}) for row in rows if row["width"] is not None}

    def decide(self, selection: Selection, shard: Shard) -> Iterator[DecidedRow] | None:
        """Return the rows of a shard in order, each with the decision of a selection.

        None if the index has no rows of the shard, because it could not be read, or lacks a field that decides.
        Raises as `of_images`.
        """
        rows = self._rows(shard) if self.has_fields else None
        return None if rows is None else (_decided(selection, shard, row) for row in rows)

    def _rows(self, shard: Shard) -> list[dict[str, Any]] | None:
        try:
            return read_rows(self.store, self.fingerprint, shard).select(_COLUMNS).to_pylist()
        except FileNotFoundError:
            return None


def index_facts(source: SourceConfig, images: ImagesConfig) -> tuple[Index, IndexFacts] | None:
    """Open `source.index`, or else the index of `source.duplicates`; None if the config names none.

    Args:
        source: its `tested_fields` are those that decide about rows.
        images: of the job.

    Raises:
        ConfigError: there is no index at this URL.
        OutputMismatch: it was made with other settings.
    """
    url = source.index or (source.duplicates and source.duplicates.index)
    if url is None:
        return None
    index = open_index(url)
    refuse_other_settings(index, source.model_dump(mode="json"), images.model_dump(mode="json"))
    has_fields = index.has_fields(source.tested_fields)
    return index, IndexFacts(store=index.store, fingerprint=index.fingerprint, has_fields=has_fields)


def checked_index_facts(source: SourceConfig, images: ImagesConfig, shards: Sequence[Shard]) -> IndexFacts | None:
    """Like `index_facts`, after a check that the index describes these shards as they are now.

    Raises:
        OutputMismatch: names the shards that it does not describe.
    """
    opened = index_facts(source, images)
    if opened is None:
        return None
    refuse_other_source(opened[0], shards)
    return opened[1]


def _facts(row: dict[str, Any], fields: dict[str, JSON]) -> RowFacts:
    return RowFacts(
        fields=fields, num_bytes=row["bytes"], width=row["width"], height=row["height"], format=row["format"]
    )


def _decided(selection: Selection, shard: Shard, row: dict[str, Any]) -> DecidedRow:
    fields: dict[str, JSON] = json.loads(row["metadata"])
    skip = _skip_of(selection, shard, row, fields)
    return DecidedRow(row["row"], fields, skip, is_readable=row["reason"] is None)


def _skip_of(selection: Selection, shard: Shard, row: dict[str, Any], fields: dict[str, JSON]) -> Skip | None:
    # As the readers decide: a table does not say how long an image is before it is read.
    num_bytes = None if format_of(shard).has_columns else row["bytes"]
    skip = selection.skip_before_image(shard.path, row["row"], RowFacts(fields=fields, num_bytes=num_bytes))
    if skip is not None or not selection.needs_image or row["bytes"] is None:
        return skip
    if selection.needs_header and row["width"] is None:
        return None  # its header cannot be read: a failed row
    return selection.skip_by_image(_facts(row, fields))
