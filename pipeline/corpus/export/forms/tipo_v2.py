"""Normalised records for the TIPO v2 trainer (KohakUwULLM): one list of tags, and quality as one text.

Its renderer never reads `special` and writes `quality` as it is, so a list would appear with its brackets.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.corpus.export.corpus_form import CorpusForm, Reads
from pipeline.corpus.export.record_rules import MIN_TAGS, as_text, dropped_for
from schemas.trainer_rows import TIPO_V2


def convert(records: pa.Table, counts: Counter[str]) -> dict[str, pa.Table]:
    """Return the rows of the records that the trainer can use."""
    rows: list[dict[str, Any]] = []
    for record in records.to_pylist():
        row = _row(record)
        if len(row["general"]) < MIN_TAGS:
            counts[dropped_for(record, needs_size=False)] += 1
        else:
            rows.append(row)
    return {"": pa.Table.from_pylist(rows, schema=TIPO_V2)}


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: record[name] for name in TIPO_V2.names},
        "general": [*record["special"], *record["general"]],
        "quality": as_text(record["quality"]),
    }


FORM = CorpusForm(
    name="tipo-v2",
    summary="records for the TIPO v2 trainer, KohakUwULLM",
    reads=Reads.RECORDS,
    convert=lambda _config, _tokenizer: convert,
    by_unit=True,
    hint="A split of this data set is a record source: `RenderedDataset(load_dataset(FOLDER)['train'], TIPORenderer(), "
    "tokenizer)`.",
)
