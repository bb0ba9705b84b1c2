"""Renders a table of records as training texts. Pure; no I/O."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import RenderConfig
from pipeline.corpus.records.corpus_record import Record, records_of
from pipeline.corpus.text.draws import draw_seed, num_texts
from pipeline.corpus.text.text_plan import TextPlan, TextPlanner
from pipeline.corpus.text.write_text import write_text
from schemas.corpus_row import CORPUS_ROW, Drop


@dataclass(frozen=True, slots=True)
class Rendered:
    """The texts of a table of records; with weight 1, `rows.num_rows` + the sum of `drops` = records."""

    rows: pa.Table
    """Of `schemas.corpus_row.CORPUS_ROW`, in the order of the records; token counts are null."""
    drops: Counter[Drop]


def render_table(
    records: pa.Table, config: RenderConfig, *, epoch: int, seed: int, splits: Sequence[str], weight: float = 1
) -> Rendered:
    """Draw the texts of each record: one, or as many as the weight says.

    Args:
        records: of `schemas.record.RECORD`.
        config: tasks, their weights and all other probabilities.
        epoch: from 0; every epoch draws anew.
        seed: of the corpus, in [0, 2**63).
        splits: `train` or `validation`, one for each record.
        weight: texts for each record on average (`schedule`).
    """
    planner, rows, drops = TextPlanner(config), list[dict[str, Any]](), Counter[Drop]()
    for record, split in zip(records_of(records), splits, strict=True):
        for number in range(num_texts(weight, draw_seed(seed, epoch, record.id))):
            text_seed = draw_seed(seed, epoch, record.id, number)
            plan = planner(record, text_seed)
            if isinstance(plan, Drop):
                drops[plan] += 1
            else:
                rows.append({"epoch": epoch, "split": split, "seed": text_seed, **_text(record, plan)})
    return Rendered(pa.Table.from_pylist(rows, schema=CORPUS_ROW), drops)


def _text(record: Record, plan: TextPlan) -> dict[str, Any]:
    user, output = write_text(plan)
    return {
        "id": record.id,
        "source": record.source,
        "user": user,
        "output": output,
        "loss": plan.loss.value,
        "task": plan.task.value,
        "length": plan.length.value if plan.length else None,
        "gen_meta": bool(plan.predicted),
        "tags_given": plan.tags_given,
    }
