"""Whether an output holds what it promises, judged from the files alone and from what the source says."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa

from pipeline.ledger import layout
from pipeline.ledger.caption_table import contradiction, count_statuses, examples, from_parquet, identities
from pipeline.ledger.footer import Footer, RunIdentity, read_footer
from pipeline.ledger.shard_plan import Plan, remaining
from pipeline.storage import Store
from schemas.shard import Shard
from schemas.status import Reason, Status

SHOWN = 3
"""Rows in a detail."""


class ViolationKind(StrEnum):
    """A promise that does not hold."""

    NOT_COMMITTED = "not_committed"
    """Planned, and neither committed nor in quarantine."""
    QUARANTINED = "quarantined"
    """Planned, and in quarantine."""
    UNPLANNED = "unplanned"
    """A file under captions/ that is in no plan."""
    UNREADABLE = "unreadable"
    """Damaged, of another schema version, or with other columns."""
    FOOTER = "footer"
    """The footer is about another recipe or shard, or contradicts its own file."""
    MISSING_ROW = "missing_row"
    """An image and slot without caption row."""
    DOUBLE_ROW = "double_row"
    """An image and slot with several."""
    FOREIGN_ROW = "foreign_row"
    """A caption row of no image or slot of the shard."""
    ORDER = "order"
    """Caption rows not by row, then by slot."""
    KEY = "key"
    """A key that is not the source's."""
    IMAGE = "image"
    """A hash of the encoded image that is not the source's."""
    DIGEST = "digest"
    """Captions that are not those that were committed, by the footer's digest of them."""
    RECIPE = "recipe"
    """A caption row of another recipe."""
    STATUS = "status"
    """A status or reason of no closed set, a reason beside `ok`, or none beside the others."""
    CAPTION = "caption"
    """A caption that is null or blank beside `ok`, or not null beside another status."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One promise broken in one shard, with how often and the first few places."""

    shard: str
    kind: ViolationKind
    detail: str


@dataclass(frozen=True, slots=True)
class TreeVerdict:
    """What `verify_tree` found."""

    violations: tuple[Violation, ...]
    remarks: tuple[str, ...]
    """True and harmless: staging left over, quarantine records of committed shards."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """What the source says of one image."""

    key: str
    sha256: str | None
    """Hex digest of its bytes; None where there are none to be read."""


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """What `verify_shard` found."""

    violations: tuple[Violation, ...]
    has_digest: bool
    """Whether the file has a digest of its captions, which earlier versions did not write."""


def verify_tree(store: Store, plan: Plan) -> TreeVerdict:
    """Compare listings with the plan; opens no file."""
    left = remaining(store, plan)
    found: list[Violation] = []
    for entry in store.list(layout.CAPTIONS):
        shard = layout.shard_of_committed(entry.path)
        if shard not in plan.shards:
            found.append(Violation(shard or entry.path, ViolationKind.UNPLANNED, f"{entry.path} is in no plan"))
    found += [
        Violation(shard, ViolationKind.NOT_COMMITTED, f"planned, not committed; {len(fragments)} fragments staged")
        for shard, fragments in left.fragments.items()
    ]
    found += [
        Violation(shard, ViolationKind.QUARANTINED, f"see {layout.quarantine_path(shard)}")
        for shard in sorted(left.quarantined)
    ]
    return TreeVerdict(tuple(found), tuple(_remarks(store, plan, left.committed)))


def _remarks(store: Store, plan: Plan, committed: frozenset[str]) -> list[str]:
    staged = [layout.shard_of_fragment(entry.path) for entry in store.list(layout.STAGING)]
    leftover = sum(1 for shard in staged if shard not in plan.shards or shard in committed)
    shards = (layout.shard_of_quarantined(entry.path) for entry in store.list(layout.QUARANTINE))
    remarks = [f"quarantine record of committed shard {shard}" for shard in shards if shard in committed]
    return remarks + ([f"{leftover} files in staging that no run needs; `clean` removes them"] if leftover else [])


def verify_shard(
    store: Store, run: RunIdentity, shard: Shard, num_images: int, images: Sequence[SourceImage] | None = None
) -> ShardVerdict:
    """Check a committed file against the truth.

    Args:
        store: the output.
        run: recipe and slots that the output is bound to.
        shard: as in the plan.
        num_images: rows that the source's shard has.
        images: each of them, in their order; None leaves keys and hashes unchecked.
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
    digest = contradiction(footer, table, run.slots)
    found = [
        *_footer_faults(footer, table, run, shard, num_images),
        *([(ViolationKind.DIGEST, digest)] if digest else []),
        *_row_faults(table, run, num_images),
        *_column_faults(table, run, shard),
        *_image_faults(table, images),
    ]
    violations = tuple(Violation(shard.path, kind, detail) for kind, detail in found)
    return ShardVerdict(violations, footer.captions_sha256 is not None)


Fault = tuple[ViolationKind, str]


def _footer_faults(footer: Footer, table: pa.Table, run: RunIdentity, shard: Shard, num_images: int) -> list[Fault]:
    found = [footer.mismatch(run, shard)]
    if footer.num_images != num_images:
        found.append(f"{footer.num_images} images, and the source has {num_images}")
    if footer.statuses != count_statuses(table):
        found.append(f"statuses {footer.statuses}, and the rows have {count_statuses(table)}")
    return [(ViolationKind.FOOTER, detail) for detail in found if detail]


def _row_faults(table: pa.Table, run: RunIdentity, num_images: int) -> list[Fault]:
    found = identities(table, run.slots)
    num_wanted = num_images * len(run.slots)
    inside = (found >= 0) & (found < num_wanted)
    times = np.bincount(found[inside], minlength=num_wanted)
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
    if np.any(np.diff(found[inside]) < 0):
        faults.append((ViolationKind.ORDER, "rows are not by row, then by slot"))
    return faults


def _column_faults(table: pa.Table, run: RunIdentity, shard: Shard) -> list[Fault]:
    status, reason = table["status"].to_pylist(), table["reason"].to_pylist()
    captions = zip(status, table["caption"].to_pylist(), strict=True)
    checks: list[tuple[ViolationKind, str, list[bool]]] = [
        (ViolationKind.FOREIGN_ROW, "shard", [found != shard.path for found in table["shard"].to_pylist()]),
        (ViolationKind.RECIPE, "recipe", [found != run.recipe for found in table["recipe"].to_pylist()]),
        (ViolationKind.STATUS, "status", [_is_wrong(*pair) for pair in zip(status, reason, strict=True)]),
        (
            ViolationKind.CAPTION,
            "status",
            [not (text and text.strip()) if at == Status.OK else text is not None for at, text in captions],
        ),
    ]
    return [fault for kind, column, wrong in checks for fault in _named(table, kind, column, wrong)]


def _is_wrong(status: str, reason: str | None) -> bool:
    """Whether status and reason are not of their closed sets, or do not go together."""
    if status == Status.OK:
        return reason is not None
    return status not in set(Status) or reason not in set(Reason)


def _image_faults(table: pa.Table, images: Sequence[SourceImage] | None) -> list[Fault]:
    if images is None:
        return []
    columns = (table[name].to_pylist() for name in ("row", "key", "image_sha256", "status"))
    rows = list(zip(*columns, strict=True))
    inside = [0 <= row < len(images) for row, *_ in rows]
    keys = [within and key != images[row].key for within, (row, key, *_) in zip(inside, rows, strict=True)]
    hashes = [
        within and _is_another_image(sha256, status, images[row])
        for within, (row, _, sha256, status) in zip(inside, rows, strict=True)
    ]
    return [
        *_named(table, ViolationKind.KEY, "key", keys),
        *_named(table, ViolationKind.IMAGE, "image_sha256", hashes),
    ]


def _is_another_image(sha256: str | None, status: str, image: SourceImage) -> bool:
    # A failed row has no hash where its image could not be read, which may have been a matter of that hour.
    return sha256 != image.sha256 and not (sha256 is None and status == Status.FAILED)


def _named(table: pa.Table, kind: ViolationKind, column: str, wrong: Sequence[bool]) -> list[Fault]:
    bad = table.select(["row", "slot", column]).filter(pa.array(wrong, pa.bool_()))
    first = bad.slice(0, SHOWN).to_pylist()
    shown = ", ".join(f"({entry['row']}, {entry['slot']}) {column} {entry[column]!r}" for entry in first)
    return [(kind, f"{bad.num_rows}: {shown}")] if bad.num_rows else []
