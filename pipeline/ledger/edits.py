"""Edits of caption rows by people: the text of a row is replaced or rejected, and the model's is kept beside it.

All edits of a shard are one compare-and-swap of its file. An edit that the file already has changes nothing, so edits
may be applied again after a kill.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.errors import PipelineError, StoreError
from pipeline.ledger.commit import checked_footer
from pipeline.ledger.footer import Footer, RunIdentity
from pipeline.ledger.layout import committed_path
from pipeline.ledger.replacement import checked_rows, swap_rows
from pipeline.storage import Store, WriteResult
from schemas.edit import EditStatus
from schemas.shard import Shard
from schemas.status import Reason, Status

TRIES = 8
"""Compare-and-swaps of one file. Each lost one means that another process has replaced the file meanwhile, such as
`retry --rows`, which does so once a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One row of an edits file."""

    line: int
    """Of the file, for messages."""
    shard: str
    row: int
    slot: str
    editor: str
    status: EditStatus
    caption: str | None
    """The text; None if the status is rejected."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """An edit that cannot be applied, and why."""

    line: int
    message: str


Rows = dict[tuple[int, str], dict[str, Any]]
"""Caption rows of a shard by row and slot."""


def find_mistakes(store: Store, run: RunIdentity, shard: Shard, edits: Sequence[Edit]) -> list[Mistake]:
    """Return the edits of a shard that its committed file cannot take; writes nothing.

    Raises:
        OutputMismatch: the file belongs to another shard or recipe.
        StoreError: its captions are not those that were committed.
    """
    try:
        footer, table, _ = _read(store, run, shard)
    except FileNotFoundError:
        reason = f"shard {shard.path} is planned and not committed yet; caption it first"
        return [Mistake(edit.line, reason) for edit in edits]
    return _mistakes(footer, _by_identity(table.to_pylist()), edits)


def apply_edits(store: Store, run: RunIdentity, shard: Shard, edits: Sequence[Edit], time: str) -> int:
    """Apply edits to a shard's committed file by one compare-and-swap; return the number of rows that changed.

    Args:
        store: the output.
        run: recipe and slots of the output.
        shard: as in the plan.
        edits: of this shard, at most one of each row and slot.
        time: UTC, ISO 8601; stored in the rows that change.

    Raises:
        PipelineError: the file changed since `find_mistakes`, so that an edit no longer fits.
        StoreError: as `find_mistakes`, or the file is replaced by others again and again.
    """
    for _ in range(TRIES):
        footer, table, version = _read(store, run, shard)
        in_order = table.to_pylist()
        rows = _by_identity(in_order)
        mistakes = _mistakes(footer, rows, edits)
        if mistakes:
            raise PipelineError(f"line {mistakes[0].line}: {mistakes[0].message}; its shard was not changed")
        changed = {(edit.row, edit.slot): new for edit in edits if (new := _edited(rows, edit, time)) is not None}
        if not changed:
            return 0
        merged = [changed.get((row["row"], row["slot"]), row) for row in in_order]
        wanted = replace(footer, attempt=uuid.uuid4().hex)
        result = swap_rows(store, wanted, pa.Table.from_pylist(merged, schema=table.schema), version)
        if result.outcome is not WriteResult.EXISTS:
            return len(changed)
    raise StoreError(
        f"{store.url}/{committed_path(shard.path)}: was replaced by other processes {TRIES} times while its edits were "
        "applied; run the same command again when no `retry --rows` works on this output"
    )


def _read(store: Store, run: RunIdentity, shard: Shard) -> tuple[Footer, pa.Table, str]:
    data, version = store.get_versioned(committed_path(shard.path))
    footer, _ = checked_footer(store, data, run, shard)
    return footer, checked_rows(store, data, footer), version


def _by_identity(rows: Sequence[dict[str, Any]]) -> Rows:
    return {(row["row"], row["slot"]): row for row in rows}


def _mistakes(footer: Footer, rows: Rows, edits: Sequence[Edit]) -> list[Mistake]:
    checked = ((edit.line, _mistake(footer, rows, edit)) for edit in edits)
    return [Mistake(line, message) for line, message in checked if message]


def _mistake(footer: Footer, rows: Rows, edit: Edit) -> str | None:
    if edit.slot not in footer.run.slots:
        return f"slot {edit.slot!r}: not in this output; allowed: {', '.join(footer.run.slots)}"
    row = rows.get((edit.row, edit.slot))
    if row is None:
        return f"row {edit.row}: shard {edit.shard} has {footer.num_images} images; allowed: 0..{footer.num_images - 1}"
    if row["status"] == Status.SKIPPED:
        reason = row["message"] or row["reason"]
        return (
            f"row {edit.row}, slot {edit.slot}: is skipped ({reason}); only rows that the selection selects have edits"
        )
    if edit.status is EditStatus.REJECTED and row["caption"] is None and row["rejected_text"] is None:
        return f"row {edit.row}, slot {edit.slot}: is {row['status']} and has no text to reject; leave the edit out"
    return None


def _edited(rows: Rows, edit: Edit, time: str) -> dict[str, Any] | None:
    """Return the row after an edit; None if it has this edit already."""
    row = rows[edit.row, edit.slot]
    wanted = _accepted(edit) if edit.status is EditStatus.OK else _rejected(row)
    wanted["edited_by"] = edit.editor
    if all(row[name] == value for name, value in wanted.items()):
        return None
    model_caption = row["caption"] if row["edited_by"] is None else row["model_caption"]
    return {**row, **wanted, "model_caption": model_caption, "edited_at": time}


def _accepted(edit: Edit) -> dict[str, Any]:
    assert edit.caption is not None
    return {
        "status": Status.OK.value,
        "reason": None,
        "message": None,
        "caption": edit.caption,
        # The findings and counts are those of the model's text.
        "flags": [],
        "unknown_tags": None,
        "given": None,
        "mentioned": None,
        "words": len(edit.caption.split()),
    }


def _rejected(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": Status.REJECTED.value,
        "reason": Reason.EDITOR.value,
        "message": None,
        "caption": None,
        "rejected_text": row["rejected_text"] if row["caption"] is None else row["caption"],
    }
