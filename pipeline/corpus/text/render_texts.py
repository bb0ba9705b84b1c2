"""Records to training texts, a table at a time: the door that jobs use. Pure; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.config import RenderConfig
from pipeline.corpus.records.corpus_record import Record, records_of
from pipeline.corpus.text.draws import draw_seed
from pipeline.corpus.text.text_plan import Plan, Planner
from pipeline.corpus.text.write_text import write
from schemas.corpus_row import CORPUS_ROW, Drop


@dataclass(frozen=True, slots=True)
class Rendered:
    """The texts of a table of records: `rows.num_rows` + the sum of `drops` = records."""

    rows: pa.Table
    """Of `schemas.corpus_row.CORPUS_ROW`, in the order of the records; token counts are null."""
    places: list[int]
    """Index of each row's record; ids may repeat."""
    drops: Counter[Drop]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of the rows, growing together."""

    values: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in CORPUS_ROW.names})

    def add(self, *row: Any) -> None:  # noqa: ANN401 - one value of each column
        for column, value in zip(self.values.values(), row, strict=True):
            column.append(value)


def render_table(records: pa.Table, config: RenderConfig, *, epoch: int, seed: int, splits: Sequence[str]) -> Rendered:
    """Draw one text from each record.

    Args:
        records: of `schemas.record.RECORD`.
        config: what is drawn.
        epoch: from 0; another one gives other draws.
        seed: of the corpus, in [0, 2**63).
        splits: `train` or `validation`, one for each record.
    """
    planner, columns, drops, places = Planner(config), _Columns(), Counter[Drop](), list[int]()
    for place, (record, split) in enumerate(zip(records_of(records), splits, strict=True)):
        drawn = draw_seed(seed, epoch, record.id)
        plan = planner(record, drawn)
        if isinstance(plan, Drop):
            drops[plan] += 1
        else:
            _add(columns, record, plan, epoch, split, drawn)
            places.append(place)
    return Rendered(pa.Table.from_pydict(columns.values, schema=CORPUS_ROW), places, drops)


def _add(columns: _Columns, record: Record, plan: Plan, epoch: int, split: str, drawn: int) -> None:
    user, output = write(plan)
    columns.add(
        record.id,
        epoch,
        record.source,
        split,
        user,
        output,
        plan.loss.value,
        plan.task.value,
        plan.length.value if plan.length else None,
        bool(plan.predicted),
        plan.tags_given,
        drawn,
        None,
        None,
    )
