"""JSON Lines: one object per image, without bytes."""

import json
from collections.abc import Iterator

from pipeline.export.form import File, Form, ShardCaptions
from pipeline.export.table_forms import TABLE_OPTIONS, build_table, columns_of, plain_rows


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield the shard's lines."""
    table = build_table(captions)
    _, rows = plain_rows(table)
    lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    yield File(f"data/{captions.shard.path}.jsonl", "".join(lines).encode(), columns_of(table))


FORM = Form(name="jsonl", summary="tables", files=files, needs_images=False, honours=TABLE_OPTIONS)
