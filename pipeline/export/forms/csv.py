"""CSV: one row per image, without bytes; lists and objects are JSON in their cell."""

import csv
import json
from collections.abc import Iterator
from typing import Any

from pipeline.export.form import File, Form, ShardCaptions
from pipeline.export.table_forms import TABLE_OPTIONS, build_table, columns_of, plain_rows

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a text that spreadsheets take for a formula (OWASP, CSV Injection)."""


def files(captions: ShardCaptions) -> Iterator[File]:
    """Yield the shard's rows below a header."""
    table = build_table(captions)
    names, rows = plain_rows(table)
    escape = captions.config.escape_formulas
    lines = _Lines()
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow([_cell(name, escape=escape) for name in names])
    writer.writerows([_cell(row[name], escape=escape) for name in names] for row in rows)
    yield File(f"data/{captions.shard.path}.csv", "".join(lines.written).encode(), columns_of(table))


class _Lines:
    """Receives rows that end in CR LF and ends them in LF.

    Python before 3.13 quotes a CR in a cell only where rows end in one, and unquoted it would end the row.
    """

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, row: str) -> None:
        self.written.append(row.removesuffix("\r\n") + "\n")


def _cell(value: Any, *, escape: bool) -> Any:  # noqa: ANN401 - what a column may hold
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"'{value}" if escape and isinstance(value, str) and value.startswith(FORMULA) else value


FORM = Form(name="csv", summary="tables", files=files, needs_images=False, honours=TABLE_OPTIONS | {"escape_formulas"})
