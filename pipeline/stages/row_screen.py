"""Applies a selection to the rows of one shard, with as little reading as its conditions allow."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.config import ImagesConfig
from pipeline.errors import BadImage
from pipeline.images import Header
from pipeline.readers import SourceRow
from pipeline.selection import JSON, RowFacts, Selection, Skip
from schemas.status import SKIPS, Reason

ReadHeader = Callable[[bytes, ImagesConfig], Header]


class RowScreen:
    """The selection for one shard."""

    def __init__(
        self,
        selection: Selection,
        images: ImagesConfig,
        shard: str,
        read_header: ReadHeader,
        known: Mapping[int, RowFacts] | None = None,
    ) -> None:
        """Take the facts about images that an index knows, by row, as `known`."""
        self._selection = selection
        self._images = images
        self._shard = shard
        self._read_header = read_header
        self._known = known or {}

    def before_image(self, row: int, fields: Mapping[str, JSON], num_bytes: int | None) -> tuple[Reason, str] | None:
        """Decide about a row before its image is read: a `pipeline.readers.Screen`."""
        skip = self._selection.skip_before_image(self._shard, row, RowFacts(fields=fields, num_bytes=num_bytes))
        if skip is None and self._selection.needs_image and row in self._known:
            skip = self._selection.skip_by_image(replace(self._known[row], fields=fields))
        return None if skip is None else (skip.reason, skip.condition)

    def judge(self, row: SourceRow, data: bytes) -> tuple[Skip | None, Header | None]:
        """Decide about a row whose image was read; return its header too, where a condition needed it.

        Raises:
            BadImage: its header cannot be read, and nothing else skips the row.
        """
        if self._selection.selects_all:
            return None, None
        fields = row.metadata | row.tested
        # Again, since a reader may ignore `before_image`.
        skip = self._selection.skip_before_image(self._shard, row.row, RowFacts(fields=fields))
        if skip is not None or not self._selection.needs_image:
            return skip, None
        header = self._read_header(data, self._images) if self._selection.needs_header else None
        facts = RowFacts(
            fields=fields,
            num_bytes=len(data),
            width=header and header.width,
            height=header and header.height,
            format=header and header.format,
        )
        return self._selection.skip_by_image(facts), header

    def judge_unread(self, row: SourceRow) -> Skip | None:
        """Decide about a row of texts, whose image is not read: by what an output that is the source says about it."""
        parent = row.parent
        facts = RowFacts(
            fields=row.metadata | row.tested,
            num_bytes=parent and parent.num_bytes,
            width=parent and parent.width,
            height=parent and parent.height,
            format=parent and parent.format,
        )
        return self._selection.skip_by_identity(self._shard, row.row) or self._selection.skip_by_image(facts)

    def skip_of(self, row: SourceRow) -> Skip | None:
        """Return why a row is not captioned.

        None also for a row without a readable image that is in the sample and within the limit: the run makes it a
        `failed` row, so that no condition about an image hides damage.
        """
        if row.reason is not None and row.reason in SKIPS:
            return Skip(row.reason, row.message or "")
        if row.data is None and row.reason is None:
            return self.judge_unread(row)
        if row.data is None:
            return self._selection.skip_by_identity(self._shard, row.row)
        try:
            return self.judge(row, row.data)[0]
        except BadImage:
            return None
