"""`joyfleet quality OUTPUT`: quality figures of its committed captions, printed and stored as Parquet."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from jobs.output import open_output
from schemas.quality_report import COUNTED

if TYPE_CHECKING:
    from pipeline.report.quality_stats import QualityReport

SHOWN = 8
"""Reasons and openings that are printed."""
WIDTH = 140
"""Characters of the table, on any terminal and in a CI log."""


@click.command()
@click.argument("output")
def quality(output: str) -> None:
    """Measure OUTPUT's committed captions per mode and length, and write OUTPUT/report/quality/*.parquet."""
    # datasketch imports scipy, which takes half a second: only this verb needs it.
    from pipeline.report.quality_stats import measure_quality, write_report  # noqa: PLC0415

    opened = open_output(output)
    report = measure_quality(opened.store)
    paths = write_report(opened.store, report)
    _print(report)
    for path in paths:
        click.echo(path)


def _print(report: QualityReport) -> None:
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False, width=WIDTH)
    names = ("mode", "length", "rows", *COUNTED, "words", "kept", "distinct 3")
    table = Table(*names, "exact dup.", "near dup.", box=None, pad_edge=False)
    groups = report.groups.to_pylist()
    for row in groups:
        table.add_row(*_cells(row))
    console.print(table)
    for row in groups:
        if row["given"]:
            counts = f"{_percent(row['mentioned'])} of {row['given']:,} given tags and names"
            console.print(f"mentioned: {counts}  ({row['mode']}, {row['length']})", markup=False)
    for title, rows in (("reasons and flags", report.reasons), ("openings", report.openings)):
        console.print(f"\n{title}", markup=False)
        for row in sorted(rows.to_pylist(), key=lambda row: -row["rows"])[:SHOWN]:
            what = f"{row['kind']} {row['name']}" if "kind" in row else repr(row["opening"])
            console.print(f"{row['rows']:>8,}  {what}  ({row['mode']}, {row['length']})", markup=False)
    console.print()


def _cells(row: Mapping[str, Any]) -> list[str]:
    counts = [f"{row[name]:,}" for name in ("rows", *COUNTED)]
    median = row["words_p50"]
    words = "-" if median is None else f"{row['words_p10']}-{median}-{row['words_p90']}"
    shares = ("length_kept", "distinct_3", "exact_duplicates", "near_duplicates")
    return [row["mode"], row["length"], *counts, words, *(_percent(row[name]) for name in shares)]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
