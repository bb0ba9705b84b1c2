"""Records to training texts, a table at a time. The door that jobs use; pure, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.config import RenderConfig
from schemas.corpus_row import Drop


@dataclass(frozen=True, slots=True)
class Rendered:
    """The texts of a table of records: `rows.num_rows` + the sum of `drops` = records."""

    rows: pa.Table
    """Of `schemas.corpus_row.CORPUS_ROW`, in the order of the records; token counts are null."""
    drops: Counter[Drop]


def render_table(records: pa.Table, config: RenderConfig, *, epoch: int, seed: int, splits: Sequence[str]) -> Rendered:
    """Draw one text from each record.

    Args:
        records: of `schemas.record.RECORD`.
        config: what is drawn.
        epoch: from 0; another one gives other draws.
        seed: of the corpus, in [0, 2**63).
        splits: `train` or `validation`, one for each record.
    """
    raise NotImplementedError
