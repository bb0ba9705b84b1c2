"""The edits file of `joyfleet amend` and `joyfleet review`: CSV or Parquet, read row by row, every mistake named."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.suggestions import did_you_mean
from pipeline.errors import ConfigError
from pipeline.ledger.edits import Edit, Mistake
from pipeline.quality.edited_text import edited_text_mistake, find_control_character
from schemas.edit import EDIT, EditStatus

REQUIRED = tuple(field.name for field in EDIT if field.name != "status")
COLUMNS = tuple(EDIT.names)
STATUSES = tuple(status.value for status in EditStatus)

Values = Mapping[str, Any]


def read_edits(path: str) -> tuple[list[Edit], list[Mistake]]:
    """Return the edits of a file that are well formed, in order, and what is wrong with the others.

    Raises:
        ConfigError: the file cannot be read, or its columns are not those of edits.
    """
    edits: list[Edit] = []
    mistakes: list[Mistake] = []
    lines: dict[tuple[str, int, str], int] = {}
    for line, values in _rows(path):
        edit = _edit(line, values)
        if isinstance(edit, str):
            mistakes.append(Mistake(line, edit))
            continue
        first = lines.setdefault((edit.shard, edit.row, edit.slot), line)
        if first != line:
            where = f"shard {edit.shard}, row {edit.row}, slot {edit.slot}"
            mistakes.append(Mistake(line, f"{where}: line {first} edits it too; leave one of them out"))
            continue
        edits.append(edit)
    return edits, mistakes


def write_edits(path: Path, edits: Sequence[Edit]) -> None:
    """Write edits as CSV, whole: the file has its name only when it is complete."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: getattr(edit, name) for name in COLUMNS} for edit in edits)
    temporary.replace(path)


def _rows(path: str) -> Iterator[tuple[int, Values]]:
    """Yield the rows with their line; a row of a Parquet file counts as a line, from 1."""
    name = path.lower()
    if name.endswith(".csv"):
        yield from _csv_rows(path)
    elif name.endswith(".parquet"):
        yield from _parquet_rows(path)
    else:
        raise ConfigError(f"{path}: not an edits file; allowed: .csv and .parquet, with {', '.join(REQUIRED)}")


def _csv_rows(path: str) -> Iterator[tuple[int, Values]]:
    try:
        # With a byte order mark, as spreadsheets write it, or without.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            _check_columns(path, reader.fieldnames or ())
            for values in reader:
                yield reader.line_num, values
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror}); give a file that exists") from err
    except (csv.Error, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: not CSV in UTF-8 ({err}); save it as CSV with a header, UTF-8") from err


def _parquet_rows(path: str) -> Iterator[tuple[int, Values]]:
    import pyarrow as pa  # noqa: PLC0415 - takes 0.3 s, which --help does not need
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    try:
        table = pq.read_table(path)
        _check_columns(path, table.column_names)
        columns = {name: table[name].cast(EDIT.field(name).type) for name in table.column_names}
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err}); give a file that exists") from err
    except pa.ArrowException as err:
        listed = ", ".join(f"{field.name} {field.type}" for field in EDIT)
        raise ConfigError(f"{path}: not a Parquet file of edits ({err}); allowed: {listed}") from err
    yield from enumerate(pa.table(columns).to_pylist(), 1)


def _check_columns(path: str, names: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    unknown = sorted(set(names).difference(COLUMNS))
    if missing or unknown or len(set(names)) != len(names):
        raise ConfigError(
            f"{path}: columns {', '.join(map(repr, names)) or 'none'}; missing {', '.join(missing) or 'none'}, unknown "
            f"{', '.join(unknown) or 'none'}; allowed: each of {', '.join(REQUIRED)} once, and status"
            f"{did_you_mean(unknown, missing)}"
        )


def _edit(line: int, values: Values) -> Edit | str:
    """Return the edit of a row, or what is wrong with it."""
    if values.get(""):
        return f"has {len(values['']) + len(values) - 1} values, more than columns; quote texts that have commas"
    shard, slot, editor = (values[name] or "" for name in ("shard", "slot", "editor"))
    missing = [name for name, value in (("shard", shard), ("slot", slot), ("editor", editor)) if not value.strip()]
    if missing:
        return f"{', '.join(missing)}: empty; give a value"
    control = find_control_character(editor)
    if control or "\n" in editor:
        return f"editor: {control or 'has a line feed'}"
    row = _row_number(values["row"])
    if row is None:
        return f"row: found {values['row']!r}; allowed: a number from 0 on"
    status, caption = values.get("status") or EditStatus.OK.value, values["caption"] or None
    if status not in STATUSES:
        return f"status: found {status!r}; allowed: {', '.join(STATUSES)}, or empty for ok"
    mistake = _caption_mistake(EditStatus(status), caption)
    return mistake or Edit(
        line=line, shard=shard, row=row, slot=slot, editor=editor, status=EditStatus(status), caption=caption
    )


def _row_number(value: object) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _caption_mistake(status: EditStatus, caption: str | None) -> str | None:
    if status is EditStatus.OK:
        return edited_text_mistake(caption or "")
    return None if caption is None else "caption: not empty beside status rejected; allowed: one of the two"
