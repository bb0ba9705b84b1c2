"""A review without its page: rows that wait for a decision, and the edits file that each decision goes to at once."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from jobs.edits_file import read_edits, write_edits
from pipeline.errors import ConfigError
from pipeline.ledger.edits import Edit
from pipeline.quality.edited_text import edited_text_mistake
from pipeline.report.committed import committed_files
from pipeline.report.html import render
from pipeline.report.thumbnails import ImageSource, Thumbnail, read_thumbnails
from pipeline.storage import Store
from schemas.edit import EditStatus
from schemas.status import Status

MAX_ROWS = 1000
"""Rows of a session, the first of the output that qualify: some 5 MB. `amend` takes them out of the next session."""

SIDE_PX = 768
"""Of the longer side of a picture."""

COLUMNS = [
    *("shard", "row", "key", "slot", "mode", "prompt", "width", "height", "image_sha256"),
    *("status", "reason", "message", "flags", "caption", "rejected_text", "edited_by"),
]

Identity = tuple[str, int, str]
"""Shard, row and slot."""


class Kind(StrEnum):
    """Which rows are reviewed."""

    FLAGGED = "flagged"
    """Rows that are ok and have a flag."""
    REJECTED = "rejected"


def read_decisions(file: Path) -> list[Edit]:
    """Return the edits of an earlier session; none without a file.

    Raises:
        ConfigError: the file is none of edits, or has wrong ones.
    """
    if not file.exists():
        return []
    edits, mistakes = read_edits(str(file))
    if mistakes:
        raise ConfigError(
            f"{file}: line {mistakes[0].line}: {mistakes[0].message}; correct it, or give another file with --edits"
        )
    return edits


def rows_to_review(store: Store, kinds: Collection[Kind], decided: Collection[Identity]) -> list[dict[str, Any]]:
    """Return the first rows of an output of these kinds that nobody has edited or decided on, by shard, row and slot.

    Raises:
        StoreError: a committed file is damaged.
    """
    rows: list[dict[str, Any]] = []
    for row in _rows(store):
        if row["edited_by"] is None and kind_of(row) in kinds and identity_of(row) not in decided:
            rows.append(row)
            if len(rows) == MAX_ROWS:
                break
    return rows


def _rows(store: Store) -> Iterator[dict[str, Any]]:
    for committed in committed_files(store):
        for batch in committed.batches(COLUMNS):
            yield from batch.to_pylist()


def kind_of(row: Mapping[str, Any]) -> Kind | None:
    """Return the kind of a caption row; None if it needs no review."""
    if row["status"] == Status.REJECTED:
        return Kind.REJECTED
    return Kind.FLAGGED if row["status"] == Status.OK and row["flags"] else None


def identity_of(row: Mapping[str, Any]) -> Identity:
    """Return the identity of a caption row."""
    return row["shard"], row["row"], row["slot"]


def text_of(row: Mapping[str, Any]) -> str:
    """Return the text that a row has: its caption, else the rejected one."""
    return row["caption"] or row["rejected_text"] or ""


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows of one row."""

    number: int
    """From 0; the number of rows after the last one."""
    progress: str
    """HTML, as the following two."""
    picture: str
    about: str
    text: str
    """Of the row, or of the decision on it."""


@dataclass(slots=True)
class Review:
    """The decisions of one person on some rows. Methods may be called from several threads.

    Every action names the row that the person saw, so that two quick keys never decide on a row that was not shown.
    """

    output: str
    rows: Sequence[Mapping[str, Any]]
    origin: ImageSource
    file: Path
    editor: str
    earlier: Sequence[Edit] = ()
    """Decisions of earlier sessions in the same file."""
    schemas: Mapping[str, str] = field(default_factory=dict[str, str])
    """JSON Schemas of slots, as JSON text."""
    _decisions: dict[Identity, Edit] = field(default_factory=dict[Identity, Edit])
    _pictures: dict[int, Future[Thumbnail]] = field(default_factory=dict[int, "Future[Thumbnail]"])
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, number: int, text: str) -> str | None:
        """Decide that a row has this text; return what is wrong with the text, or None."""
        if number >= len(self.rows):
            return None
        mistake = edited_text_mistake(text, self.schemas.get(self.rows[number]["slot"]))
        if mistake is None:
            self._decide(number, EditStatus.OK, text)
        return mistake

    def reject(self, number: int) -> None:
        """Decide that the text of a row is rejected."""
        if number < len(self.rows):
            self._decide(number, EditStatus.REJECTED, None)

    def undo(self, number: int) -> None:
        """Take back the decision on a row."""
        with self._lock:
            if number < len(self.rows) and self._decisions.pop(identity_of(self.rows[number]), None):
                self._write()

    def next_undecided(self, number: int) -> int:
        """Return the next row after `number` without a decision; else the first one, else the number of rows."""
        order = [*range(number + 1, len(self.rows)), *range(min(number + 1, len(self.rows)))]
        undecided = (place for place in order if identity_of(self.rows[place]) not in self._decisions)
        return next(undecided, len(self.rows))

    def view(self, number: int) -> View:
        """Return what the page shows of a row; reads its picture, and in the background that of the next one."""
        number = max(0, min(number, len(self.rows)))
        row = self.rows[number] if number < len(self.rows) else None
        decision = self._decisions.get(identity_of(row)) if row else None
        picture = self._picture(number).result() if row else None
        if number + 1 < len(self.rows):
            self._picture(number + 1)
        values = {
            **self._counts(),
            "row": row,
            "number": number + 1,
            "total": len(self.rows),
            "picture": picture,
            "decision": _name_of(row, decision) if row and decision else None,
            "file": str(self.file),
            "editor": self.editor,
            "output": self.output,
        }
        parts = [render("review.html.jinja", {**values, "part": part}) for part in ("progress", "picture", "about")]
        text = text_of(row) if row else ""
        return View(number, *parts, text=decision.caption or text if decision else text)

    def _decide(self, number: int, status: EditStatus, text: str | None) -> None:
        shard, row, slot = identity = identity_of(self.rows[number])
        edit = Edit(line=0, shard=shard, row=row, slot=slot, editor=self.editor, status=status, caption=text)
        with self._lock:
            self._decisions[identity] = edit
            self._write()

    def _write(self) -> None:
        write_edits(self.file, [*self.earlier, *self._decisions.values()])

    def _picture(self, number: int) -> "Future[Thumbnail]":
        with self._lock:
            if number not in self._pictures:
                self._pictures = {place: self._pictures[place] for place in list(self._pictures)[-8:]}
                self._pictures[number] = self._pool.submit(self._read_picture, number)
            return self._pictures[number]

    def _read_picture(self, number: int) -> Thumbnail:
        row = self.rows[number]
        missing = Thumbnail(None, "the image could not be decoded")
        return read_thumbnails(self.origin, [row]).get((row["shard"], row["row"]), missing)

    def _counts(self) -> Mapping[str, int]:
        rows = {identity_of(row): row for row in self.rows}
        counts = Counter(_name_of(rows[identity], edit) for identity, edit in self._decisions.items())
        return {name: counts[name] for name in ("accepted", "edited", "rejected")}


def _name_of(row: Mapping[str, Any], edit: Edit) -> str:
    if edit.status is EditStatus.REJECTED:
        return "rejected"
    return "accepted" if edit.caption == text_of(row) else "edited"
