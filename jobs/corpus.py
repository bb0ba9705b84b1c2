"""`joyfleet corpus job.yaml` makes training text from captions, tags and metadata; `--check FILE` checks such text."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from jobs.job_file import set_option
from jobs.logs import Terminal, new_log, redirect_output
from jobs.progress_line import clock
from jobs.push import push_options, refuse_push, send
from jobs.signals import SIGNALS
from jobs.terminal import echo, print_table, printable
from pipeline.config import Preset, RenderConfig, load_corpus
from pipeline.corpus import corpus_layout
from pipeline.errors import PipelineError
from pipeline.export.hub import Push
from pipeline.flow.ray_env import prepare_ray_env

if TYPE_CHECKING:
    from pipeline.corpus.corpus_job import PreparedCorpus

LINE_INTERVAL_S = 30.0

PLANNING = "stopped while planning; no text was made yet; run the same command again to resume"
"""The message when a signal ends a run before anything is in flight."""


@click.command()
@click.option("--check", "files", multiple=True, type=click.Path(), metavar="FILE", help="Check the texts of a file.")
@click.option(
    "--preset",
    type=click.Choice([str(name) for name in Preset]),
    default=str(Preset.TIPO_V2_1),
    show_default=True,
    help="With --check: the preset whose grammar the texts must follow.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 1000),
    help="Add epochs to the finished corpus of JOB_FILE until it has so many. Its records and texts stay as they are.",
)
@click.argument("paths", type=click.Path(), nargs=-1, metavar="JOB_FILE | FILE...")
@set_option
@push_options("corpus", "Corpus by JoyFleet")
def corpus(
    files: Sequence[str],
    preset: str,
    epochs: int | None,
    paths: Sequence[str],
    overrides: Sequence[str],
    push: Push | None,
) -> None:
    """Make the corpus of JOB_FILE, or resume it; with --check, check the texts of FILES.

    FILES are Parquet, JSON Lines (also .zst), or .txt with an empty line between texts. --check prints position and
    rule of each fault. Its exit code is 0 if all texts follow the grammar, 1 if a text does not or there is no text.
    """
    if files:
        if epochs is not None:
            raise click.UsageError("--epochs adds to a corpus, --check reads files; give one of them")
        if push:
            raise click.UsageError("--check reads files and sends none; leave --push out")
        _check([*files, *paths], preset)
        return
    if len(paths) != 1:
        raise click.UsageError("expected one JOB_FILE, or --check FILE...")
    SIGNALS.end_at_once(PLANNING)
    config = load_corpus(paths[0], overrides)
    refuse_push(push, config.output)
    prepare_ray_env(config.cluster)
    from pipeline.corpus.corpus_job import prepare_corpus  # noqa: PLC0415 - only this verb needs DuckDB

    prepared = prepare_corpus(config, epochs)
    for remark in prepared.remarks:
        echo(f"joyfleet: note: {remark}", err=True)
    _run(prepared, push)


def _run(prepared: PreparedCorpus, push: Push | None) -> None:
    # Ray reads its environment when it is imported, so not at the top.
    from pipeline.flow.corpus_driver import run_corpus  # noqa: PLC0415

    log_path = new_log()
    terminal = redirect_output(log_path)
    started = time.monotonic()
    try:
        run_corpus(prepared, StepLines(terminal.err), SIGNALS.drain())
        _summary(prepared, terminal, time.monotonic() - started, log_path)
        send(push, prepared.store.url, corpus_layout.DATA_SET, terminal.out)
    except PipelineError as err:
        terminal.err.write(f"joyfleet: {prepared.config.output}: {printable(err)}\n")
        sys.exit(err.exit_code)


class StepLines:
    """Prints a line of progress every `LINE_INTERVAL_S`, and one at the end of each step."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._printed_at = 0.0

    def __call__(self, step: str, num_done: int, num_items: int) -> None:
        """Take the progress of a step."""
        if num_done == num_items or time.monotonic() - self._printed_at >= LINE_INTERVAL_S:
            self._printed_at = time.monotonic()
            self._out.write(f"{step} {num_done:,}/{num_items:,}\n")


def _summary(prepared: PreparedCorpus, terminal: Terminal, seconds: float, log_path: Path) -> None:
    from pipeline.corpus.report.corpus_report import read_dropped, read_texts  # noqa: PLC0415 - as above

    texts = read_texts(prepared.store)
    tokens = sum(row["n_tokens"] or 0 for row in texts)
    by_split = {split: sum(row["rows"] for row in texts if row["split"] == split) for split in ("train", "validation")}
    splits = ", ".join(f"{number:,} {split}" for split, number in by_split.items())
    rows = [
        ("output", prepared.config.output),
        ("recipe", prepared.recipe.fingerprint),
        ("texts", f"{sum(row['rows'] for row in texts):,}: {splits}"),
        ("dropped", dropped_line(read_dropped(prepared.store))),
        ("tokens", f"{tokens:,}" if tokens else "not counted (no tokenizer)"),
        ("this run", clock(seconds)),
        ("card", f"{prepared.store.url}/README.md"),
    ]
    print_table(terminal.out, rows)
    echo(f"log: {log_path}", file=terminal.out)


def dropped_line(counts: Counter[str]) -> str:
    """Return the dropped records by reason, the most frequent one first; `images` counts all images."""
    reasons = Counter({reason: number for reason, number in counts.items() if reason != "images"})
    if not reasons:
        return "no record"
    listed = ", ".join(f"{number:,} {reason}" for reason, number in reasons.most_common())
    return f"{reasons.total():,} of {counts['images']:,} images: {listed}"


def _check(files: Sequence[str], preset: str) -> None:
    """Print every text that breaks the grammar; exit with 1 if there is one."""
    from pipeline.corpus.text.check_texts import check_file  # noqa: PLC0415 - as above
    from pipeline.corpus.text.text_grammar import profile_of  # noqa: PLC0415 - as above

    profile = profile_of(RenderConfig.model_validate(preset))
    texts = broken = 0
    for file in files:
        for checked in check_file(file, profile):
            texts += 1
            if checked.fault is not None:
                broken += 1
                echo(f"{file}: {checked.place}: {checked.fault}")
    click.echo(f"{texts:,} texts, {broken:,} broken")
    if broken or not texts:
        sys.exit(1)
