"""Verifies an output: its files against the plan, the footers, the schema and the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.ledger import layout
from pipeline.ledger.caption_table import count_statuses, digest_mismatch, examples, from_parquet, identities
from pipeline.ledger.footer import Footer, RunIdentity, read_footer
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.storage import Store
from schemas.shard import Shard
from schemas.status import SKIPS, Reason, Status, no_rows

SHOWN = 3
"""Rows in a detail."""


class ViolationKind(StrEnum):
    """What is wrong."""

    NOT_COMMITTED = "not_committed"
    """Planned, neither committed nor in quarantine."""
    QUARANTINED = "quarantined"
    """Planned, and in quarantine."""
    UNPLANNED = "unplanned"
    """A file under captions/ that is not in the plan."""
    UNREADABLE = "unreadable"
    """Damaged, of another schema version, or with other columns."""
    FOOTER = "footer"
    """The footer is of another recipe or shard, or does not match its own file."""
    MISSING_ROW = "missing_row"
    """An image and slot without a caption row."""
    DOUBLE_ROW = "double_row"
    """An image and slot with several caption rows."""
    FOREIGN_ROW = "foreign_row"
    """A caption row of an image or slot that the shard does not have."""
    ORDER = "order"
    """Caption rows are not sorted by row, then by slot."""
    KEY = "key"
    """A key differs from the source's."""
    IMAGE = "image"
    """The hash of an encoded image differs from the source's."""
    DIGEST = "digest"
    """The captions do not match the digest in the footer."""
    RECIPE = "recipe"
    """A caption row of another recipe."""
    STATUS = "status"
    """An unknown status or reason, a reason beside `ok`, or no reason beside another status."""
    CAPTION = "caption"
    """A caption is null or blank beside `ok`, or not null beside another status."""
    SELECTION = "selection"
    """A row is skipped although the selection selects it, or is not skipped although it does not, or for another
    condition."""
    EDIT = "edit"
    """The editor or the time of an edit is missing, or a row without an editor has what only an edit gives."""
    COLUMN = "column"
    """Of an index: a column differs from what the source gives, or from another column."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One kind of violation in one shard, with its count and the first few places."""

    shard: str
    kind: ViolationKind
    detail: str


@dataclass(frozen=True, slots=True)
class TreeVerdict:
    """The result of `verify_tree`."""

    violations: tuple[Violation, ...]
    remarks: tuple[str, ...]
    """Harmless: unneeded files in staging, quarantine records of committed shards."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image as the source has it."""

    key: str
    sha256: str | None
    """Hex digest of its bytes; None where the source has no readable bytes."""
    skipped_by: str | None = None
    """The condition of the output's selection that skips it; None: it is selected."""
    skipped_before: tuple[str | None, ...] = ()
    """As `skipped_by`, of the selections before it, under which the shard was captioned maybe."""
    duplicate_of: str | None = None
    """The leader in whose place it is skipped, or may be asked; as in a caption row."""


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """The result of `verify_shard`."""

    violations: tuple[Violation, ...]
    has_digest: bool
    """Whether the footer has a digest of the captions; earlier versions wrote none."""
    num_edited: int = 0
    """Caption rows that a person has edited."""


def verify_tree(store: Store, plan: Plan) -> TreeVerdict:
    """Compare listings with the plan; opens no file."""
    left = remaining(store, plan)
    violations: list[Violation] = []
    for entry in store.list(layout.CAPTIONS):
        shard = layout.shard_of_committed(entry.path)
        if shard not in plan.shards:
            violations.append(
                Violation(shard or entry.path, ViolationKind.UNPLANNED, f"{entry.path} is not in the plan")
            )
    violations += [
        Violation(shard, ViolationKind.NOT_COMMITTED, f"planned, not committed; {len(fragments)} fragments staged")
        for shard, fragments in left.fragments.items()
    ]
    violations += [
        Violation(shard, ViolationKind.QUARANTINED, f"see {layout.quarantine_path(shard)}")
        for shard in sorted(left.quarantined)
    ]
    return TreeVerdict(tuple(violations), tuple(_remarks(store, plan, left.committed)))


def _remarks(store: Store, plan: Plan, committed: frozenset[str]) -> list[str]:
    staged = [layout.shard_of_fragment(entry.path) for entry in store.list(layout.STAGING)]
    leftover = sum(1 for shard in staged if shard not in plan.shards or shard in committed)
    shards = (layout.shard_of_quarantined(entry.path) for entry in store.list(layout.QUARANTINE))
    remarks = [f"quarantine record of committed shard {shard}" for shard in shards if shard in committed]
    return remarks + ([f"{leftover} files in staging that no run needs; run `joyfleet clean`"] if leftover else [])


def verify_shard(
    store: Store, run: RunIdentity, shard: Shard, num_images: int, images: Sequence[SourceImage] | None = None
) -> ShardVerdict:
    """Check a committed file against the plan, its own footer and the source.

    Args:
        store: the output.
        run: recipe and slots of the output.
        shard: as in the plan.
        num_images: images of the source's shard.
        images: all of them, in order; None skips the checks of keys and hashes.
    """

    def broken(kind: ViolationKind, detail: str) -> ShardVerdict:
        return ShardVerdict((Violation(shard.path, kind, detail),), False)

    try:
        data = store.get(layout.committed_path(shard.path))
    except FileNotFoundError:
        return broken(ViolationKind.NOT_COMMITTED, "no committed file")
    try:
        footer, _ = read_footer(data)
        table = from_parquet(data)
    except ValueError as err:
        return broken(ViolationKind.UNREADABLE, str(err))
    digest = digest_mismatch(footer, table, run.slots)
    faults = [
        *_footer_faults(footer, table, run, shard, num_images),
        *([(ViolationKind.DIGEST, digest)] if digest else []),
        *_row_faults(table, run, num_images),
        *_column_faults(table, run, shard),
        *_image_faults(table, images),
    ]
    violations = tuple(Violation(shard.path, kind, detail) for kind, detail in faults)
    num_edited = table.num_rows - table["edited_by"].null_count
    return ShardVerdict(violations, footer.captions_sha256 is not None, num_edited)


Fault = tuple[ViolationKind, str]


def _footer_faults(footer: Footer, table: pa.Table, run: RunIdentity, shard: Shard, num_images: int) -> list[Fault]:
    details = [footer.mismatch(run, shard)]
    if footer.num_images != num_images:
        details.append(f"written for {footer.num_images} images, the source has {num_images}")
    # An earlier version knew fewer statuses.
    if no_rows() | dict(footer.statuses or {}) != count_statuses(table):
        details.append(f"the footer counts {footer.statuses}, the rows are {count_statuses(table)}")
    return [(ViolationKind.FOOTER, detail) for detail in details if detail]


def _row_faults(table: pa.Table, run: RunIdentity, num_images: int) -> list[Fault]:
    row_identities = identities(table, run.slots)
    num_expected = num_images * len(run.slots)
    inside = (row_identities >= 0) & (row_identities < num_expected)
    times = np.bincount(row_identities[inside], minlength=num_expected)
    missing, double = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
    faults: list[Fault] = []
    if len(missing):
        faults.append((ViolationKind.MISSING_ROW, f"{len(missing)}: {examples(missing, run.slots)}"))
    if len(double):
        faults.append((ViolationKind.DOUBLE_ROW, f"{len(double)}: {examples(double, run.slots)}"))
    if not inside.all():
        foreign = table.select(["row", "slot"]).filter(pa.array(~inside))
        shown = [(entry["row"], entry["slot"]) for entry in foreign.slice(0, SHOWN).to_pylist()]
        faults.append((ViolationKind.FOREIGN_ROW, f"{foreign.num_rows}: {shown}"))
    if np.any(np.diff(row_identities[inside]) < 0):
        faults.append((ViolationKind.ORDER, "rows are not sorted by row, then by slot"))
    return faults


def _column_faults(table: pa.Table, run: RunIdentity, shard: Shard) -> list[Fault]:
    status, reason = table["status"].to_pylist(), table["reason"].to_pylist()
    captions = zip(status, table["caption"].to_pylist(), strict=True)
    checks: list[tuple[ViolationKind, str, list[bool]]] = [
        (ViolationKind.FOREIGN_ROW, "shard", [path != shard.path for path in table["shard"].to_pylist()]),
        (ViolationKind.RECIPE, "recipe", [recipe != run.recipe for recipe in table["recipe"].to_pylist()]),
        (ViolationKind.STATUS, "status", [_is_wrong(*pair) for pair in zip(status, reason, strict=True)]),
        (
            ViolationKind.CAPTION,
            "status",
            [not (text and text.strip()) if state == Status.OK else text is not None for state, text in captions],
        ),
        (ViolationKind.EDIT, "edited_by", [_is_wrong_edit(row) for row in table.select(_OF_AN_EDIT).to_pylist()]),
    ]
    return [fault for kind, column, wrong in checks for fault in _named(table, kind, column, wrong)]


_OF_AN_EDIT = ["edited_by", "edited_at", "model_caption", "reason"]


def _is_wrong_edit(row: Mapping[str, Any]) -> bool:
    """Whether the columns of an edit do not fit together."""
    if row["edited_by"] is not None:
        return row["edited_at"] is None
    return row["edited_at"] is not None or row["model_caption"] is not None or row["reason"] == Reason.EDITOR


def _is_wrong(status: str, reason: str | None) -> bool:
    """Whether status or reason is unknown, or they do not fit together."""
    if status == Status.OK:
        return reason is not None
    return status not in set(Status) or reason not in set(Reason)


def _image_faults(table: pa.Table, images: Sequence[SourceImage] | None) -> list[Fault]:
    if images is None:
        return []
    columns = (table[name].to_pylist() for name in ("row", "key", "image_sha256", "status", "edited_by"))
    rows = list(zip(*columns, strict=True))
    inside = [0 <= row < len(images) for row, *_ in rows]
    keys = [within and key != images[row].key for within, (row, key, *_) in zip(inside, rows, strict=True)]
    hashes = [
        # A failed row has no hash if its image could not be read, which may have been a temporary error; a person may
        # have given it a text since. A skipped row has none if its image was not read.
        within
        and sha256 != images[row].sha256
        and not (sha256 is None and (status in _MAY_LACK_HASH or editor is not None))
        for within, (row, _, sha256, status, editor) in zip(inside, rows, strict=True)
    ]
    return [
        *_named(table, ViolationKind.KEY, "key", keys),
        *_named(table, ViolationKind.IMAGE, "image_sha256", hashes),
        *_selection_faults(table, images),
    ]


_MAY_LACK_HASH = (Status.FAILED, Status.SKIPPED)


def _selection_faults(table: pa.Table, images: Sequence[SourceImage]) -> list[Fault]:
    columns = (table[name].to_pylist() for name in ("row", "reason", "message", "duplicate_of"))
    wrong = [
        0 <= row < len(images) and not _is_as_selected(images[row], reason, message, leader)
        for row, reason, message, leader in zip(*columns, strict=True)
    ]
    return _named(table, ViolationKind.SELECTION, "message", wrong)


def _is_as_selected(image: SourceImage, reason: str | None, message: str | None, leader: str | None) -> bool:
    if reason == Reason.NO_PARENT_CAPTION:
        # A parent may have a caption since: then the row is stale, not wrong. Where the parent's image failed, its size
        # is not known, and conditions about it are not evaluated before the caption is missed.
        return True
    skipped_by = message if reason in _BY_SELECTION else None
    if leader is None:
        if image.duplicate_of is not None and skipped_by is not None:
            return False
        # A change of the selection asks what it newly selects, and leaves everything else as it was.
        is_skipped = image.skipped_by is not None or skipped_by is None
        return is_skipped and skipped_by in (image.skipped_by, *image.skipped_before)
    # Skipped as a duplicate, or asked since its leader failed.
    return leader == image.duplicate_of and skipped_by in (image.skipped_by, None)


_BY_SELECTION = SKIPS - {Reason.HAS_CAPTION}


def _named(table: pa.Table, kind: ViolationKind, column: str, wrong: Sequence[bool]) -> list[Fault]:
    bad = table.select(["row", "slot", column]).filter(pa.array(wrong, pa.bool_()))
    first = bad.slice(0, SHOWN).to_pylist()
    shown = ", ".join(f"({entry['row']}, {entry['slot']}) {column} {entry[column]!r}" for entry in first)
    return [(kind, f"{bad.num_rows}: {shown}")] if bad.num_rows else []
