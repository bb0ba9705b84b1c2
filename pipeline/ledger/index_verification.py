"""Verifies an index: its files against the plan, their footers, and the rows that the source gives now."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.ledger import layout
from pipeline.ledger.caption_table import rows_sha256
from pipeline.ledger.index_files import Index, footer_fault, read_index_footer
from pipeline.ledger.verification import SHOWN, Violation, ViolationKind
from pipeline.storage.parquet import decode_parquet
from schemas.index import INDEX_DIGESTED, INDEX_SCHEMA, Hash
from schemas.shard import Shard

Fault = tuple[ViolationKind, str]
Row = Mapping[str, Any]

_FROM_SOURCE: Mapping[str, ViolationKind] = {
    "shard": ViolationKind.FOREIGN_ROW,
    "key": ViolationKind.KEY,
    "sha256": ViolationKind.IMAGE,
    "bytes": ViolationKind.IMAGE,
    "width": ViolationKind.COLUMN,
    "height": ViolationKind.COLUMN,
    "format": ViolationKind.COLUMN,
    "metadata": ViolationKind.COLUMN,
}
"""Columns that are computed again, and what a difference is called."""


def verify_index_tree(index: Index) -> tuple[Violation, ...]:
    """Compare listings with the plan; opens no file."""
    done, held = index.indexed(), index.quarantined()
    violations: list[Violation] = []
    for entry in index.store.list(layout.INDEX):
        shard = layout.shard_of_indexed(entry.path)
        if shard not in index.plan.shards:
            violations.append(
                Violation(shard or entry.path, ViolationKind.UNPLANNED, f"{entry.path} is not in the plan")
            )
    for path in index.plan.shards:
        if path in done:
            continue
        if path in held:
            violations.append(Violation(path, ViolationKind.QUARANTINED, f"see {layout.quarantine_path(path)}"))
        else:
            violations.append(Violation(path, ViolationKind.NOT_COMMITTED, "planned, and has no rows yet"))
    return tuple(violations)


def verify_index_shard(index: Index, shard: Shard, expected: pa.Table) -> tuple[Violation, ...]:
    """Check the file of a shard.

    Args:
        index: the index.
        shard: as in the plan.
        expected: the rows that the source gives now, without perceptual hashes.
    """
    try:
        data = index.store.get(layout.index_path(shard.path))
        footer = read_index_footer(data)
        table = decode_parquet(data, INDEX_SCHEMA)
    except FileNotFoundError:
        return (Violation(shard.path, ViolationKind.NOT_COMMITTED, "no file"),)
    except ValueError as err:
        return (Violation(shard.path, ViolationKind.UNREADABLE, str(err)),)
    faults: list[Fault] = []
    fault = footer_fault(footer, index.fingerprint, shard)
    if fault:
        faults.append((ViolationKind.FOOTER, fault))
    actual = rows_sha256(table, INDEX_DIGESTED)
    if actual != footer.rows_sha256:
        faults.append(
            (ViolationKind.DIGEST, f"the footer's digest of the rows is {footer.rows_sha256}, that of them is {actual}")
        )
    rows, wanted = table.to_pylist(), expected.to_pylist()
    faults += _order_faults([row["row"] for row in rows], len(wanted))
    pairs = [(row, wanted[row["row"]]) for row in rows if 0 <= row["row"] < len(wanted)]
    for column, kind in _FROM_SOURCE.items():
        faults += _named(kind, column, [row for row, source in pairs if row[column] != source[column]])
    faults += _named(
        ViolationKind.COLUMN, "reason", [row for row, source in pairs if _is_wrong_reason(index, row, source)]
    )
    faults += _named(ViolationKind.COLUMN, "phash", [row for row in rows if _is_wrong_phash(index, row)])
    return tuple(Violation(shard.path, kind, detail) for kind, detail in faults)


def _order_faults(numbers: Sequence[int], num_expected: int) -> Iterator[Fault]:
    if list(numbers) == list(range(num_expected)):
        return
    times = Counter(numbers)
    kinds = {
        ViolationKind.MISSING_ROW: [row for row in range(num_expected) if not times[row]],
        ViolationKind.DOUBLE_ROW: sorted(row for row, number in times.items() if number > 1),
        ViolationKind.FOREIGN_ROW: sorted(row for row in times if not 0 <= row < num_expected),
    }
    for kind, rows in kinds.items():
        if rows:
            yield kind, f"{len(rows)}: rows {', '.join(map(str, rows[:SHOWN]))}{', ...' if len(rows) > SHOWN else ''}"
    if not any(kinds.values()):
        yield ViolationKind.ORDER, "rows are not sorted by row"


def _is_wrong_reason(index: Index, row: Row, source: Row) -> bool:
    """Whether a row says that its image cannot be read and it can, or the other way round."""
    if (row["reason"] is None) != (row["error"] is None):
        return True
    # An image whose header can be read may not decode, which is only known where pixels were hashed.
    if source["reason"] is None and Hash.PHASH in index.hashes:
        return False
    return (row["reason"] is None) != (source["reason"] is None)


def _is_wrong_phash(index: Index, row: Row) -> bool:
    """Whether a row lacks a hash that it must have, or has one that it may not have."""
    if Hash.PHASH not in index.hashes:
        return row["phash"] is not None
    return (row["phash"] is None) != (row["reason"] is not None)


def _named(kind: ViolationKind, column: str, rows: Sequence[Row]) -> list[Fault]:
    shown = ", ".join(f"row {row['row']} {column} {row[column]!r}" for row in rows[:SHOWN])
    return [(kind, f"{len(rows)}: {shown}")] if rows else []
