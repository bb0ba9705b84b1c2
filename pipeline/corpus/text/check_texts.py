"""Checks every text of a file against the grammar, for `joyfleet corpus --check`.

Parquet and JSON Lines files have rows with `user` and `output` (all fields are checked) or with `text` alone. In a .txt
file an empty line separates texts, since no text contains one. Files are streamed and need not fit in memory.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpus.text.text_grammar import Profile, check_row, check_text
from pipeline.errors import BadText, ConfigError

SUFFIXES = (".parquet", ".jsonl", ".jsonl.zst", ".txt")
_COLUMNS = ("user", "output", "loss", "task", "length", "gen_meta", "tags_given", "text")


@dataclass(frozen=True, slots=True)
class CheckedText:
    """One text of a file."""

    place: str
    """`row 17` (from 0) or `line 17` (from 1) of the file, where the text begins."""
    fault: BadText | None


def check_file(path: str, profile: Profile) -> Iterator[CheckedText]:
    """Yield every text of a file in its order, with its first fault or None.

    Raises:
        ConfigError: the file cannot be read, ends in none of `SUFFIXES`, or has rows that are not texts.
    """
    name = path.lower()
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path, profile)
        elif name.endswith((".jsonl", ".jsonl.zst")):
            yield from _json_lines(path, profile)
        elif name.endswith(".txt"):
            yield from _texts(path, profile)
        else:
            raise ConfigError(f"{path}: unknown kind of file; allowed: a file that ends in {', '.join(SUFFIXES)}")
    except (OSError, pa.ArrowInvalid, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: cannot be read ({err}); give a complete file of training texts") from err


def _parquet(path: str, profile: Profile) -> Iterator[CheckedText]:
    with pq.ParquetFile(path) as file:
        columns = [name for name in _COLUMNS if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            for row in batch.to_pylist():
                yield CheckedText(f"row {number}", _fault(row, profile, f"{path}: row {number}"))
                number += 1


def _json_lines(path: str, profile: Profile) -> Iterator[CheckedText]:
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path}: line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as err:
                raise ConfigError(f"{where}: not JSON ({err}); give one object a line") from err
            if not isinstance(row, dict):
                raise ConfigError(
                    f"{where}: found {type(row).__name__}; allowed: an object with user and output, or text"
                )
            yield CheckedText(f"line {number}", _fault(row, profile, where))


def _open_text(path: str) -> io.TextIOBase:
    if path.lower().endswith(".zst"):
        stream: Any = pa.input_stream(path, compression="zstd")
        return io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
    return Path(path).open(encoding="utf-8", newline="\n")


def _fault(row: dict[str, Any], profile: Profile, where: str) -> BadText | None:
    if isinstance(row.get("user"), str) and isinstance(row.get("output"), str):
        return check_row(row, profile)
    if isinstance(row.get("text"), str):
        return check_text(row["text"], profile)
    raise ConfigError(f"{where}: found {', '.join(row) or 'no field'}; allowed: user and output, or text")


def _texts(path: str, profile: Profile) -> Iterator[CheckedText]:
    lines: list[str] = []
    start = 1
    with _open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line == "\n":
                if lines:
                    yield _checked(lines, start, profile)
                lines, start = [], number + 1
            else:
                lines.append(line)
    if lines:
        yield _checked(lines, start, profile)


def _checked(lines: list[str], start: int, profile: Profile) -> CheckedText:
    return CheckedText(f"line {start}", check_text("".join(lines).removesuffix("\n"), profile))
