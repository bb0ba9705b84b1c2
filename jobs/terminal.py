r"""Escapes control characters in printed text: keys, paths and messages come from data that may be hostile.

A key such as `\x1b[2J` would clear the screen; others set the window's title or write into the clipboard. Stored
rows, records and logs keep the original text; only printed text is escaped.
"""

import json
from collections.abc import Iterable
from typing import Any, TextIO

import click

# C0, DEL and C1, the marks that change the direction of text, and the invisible line separators.
_CONTROL = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROL}
_LINES = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}
_JSON = {code: f"\\u{code:04x}" for code in _LINES}


def printable(text: object, *, one_line: bool = False) -> str:
    r"""Return text with each control character replaced by its escape, such as `\\x1b`.

    Args:
        text: what to print.
        one_line: escape newlines and tabs too, so that a key cannot start a new line.
    """
    shown = str(text).encode("utf-8", "backslashreplace").decode()  # names that are not UTF-8 contain lone surrogates
    return shown.translate(_ESCAPES if one_line else _LINES)


def to_json(value: Any, *, indent: int | None = None) -> str:  # noqa: ANN401 - what json takes
    """Return JSON in which control characters are escaped; it parses to the same value."""
    return json.dumps(value, ensure_ascii=False, indent=indent).translate(_JSON)


def print_table(out: TextIO, rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        echo(f"{name.ljust(width)}  {value}", file=out)


def echo(text: object = "", *, err: bool = False, file: TextIO | None = None, one_line: bool = False) -> None:
    """`click.echo` of printable text."""
    click.echo(printable(text, one_line=one_line), err=err, file=file)
