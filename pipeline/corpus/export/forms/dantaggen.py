"""Records for DanTagGen's trainer (HakuPhi): `captions.jsonl`, which its loader opens by name.

The loader lets `datasets` infer the types of the columns from the first lines, see `export_corpus`: quality is a text
that may be empty, and never null.
"""

from collections import Counter
from typing import Any

import pyarrow as pa

from pipeline.corpus.export.corpus_form import CorpusForm, Reads
from pipeline.corpus.export.record_rules import MIN_TAGS, as_text, dropped_for, has_size
from schemas.trainer_rows import DANTAGGEN

CAPTIONS = "captions.jsonl"


def convert(records: pa.Table, counts: Counter[str]) -> dict[str, pa.Table]:
    """Return the rows of the records that the trainer can use."""
    rows: list[dict[str, Any]] = []
    for record in records.to_pylist():
        if len(record["general"]) < MIN_TAGS or not has_size(record):
            counts[dropped_for(record)] += 1
            continue
        rows.append({**{name: record[name] for name in DANTAGGEN.names}, "quality": as_text(record["quality"]) or ""})
    return {CAPTIONS: pa.Table.from_pylist(rows, schema=DANTAGGEN)}


FORM = CorpusForm(
    name="dantaggen",
    summary="records for DanTagGen's trainer, HakuPhi",
    reads=Reads.RECORDS,
    convert=lambda _config, _tokenizer: convert,
    json_lines=True,
    hint="Copy the file of a split into `data/dan_prompt/` of HakuPhi; its loader opens it by its name.",
)
