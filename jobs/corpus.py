"""`joyfleet corpus job.yaml`: makes training text from captions, tags and metadata; `--check FILE` checks it."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from jobs.job_file import set_option
from jobs.logs import Terminal, new_log, redirect_output
from jobs.progress_line import clock
from jobs.signals import stop_on_signals
from jobs.terminal import echo, printable
from pipeline.config import Preset, RenderConfig, load_corpus
from pipeline.errors import Interrupted, PipelineError
from pipeline.flow.ray_env import prepare_ray_env

if TYPE_CHECKING:
    from pipeline.corpus.corpus_job import PreparedCorpus, Step
    from pipeline.flow.cluster import Cluster

log = logging.getLogger(__name__)

EVERY_S = 30.0
"""Interval of the progress lines."""


@click.command()
@click.argument("job_file", type=click.Path(), required=False)
@click.option("--check", "files", multiple=True, type=click.Path(), metavar="FILE", help="Check training texts.")
@click.option(
    "--preset",
    type=click.Choice([str(name) for name in Preset]),
    default=str(Preset.TIPO_V2_1),
    show_default=True,
    help="With --check: the preset whose grammar the texts must keep.",
)
@click.argument("more_files", type=click.Path(), nargs=-1)
@set_option
def corpus(
    job_file: str | None, files: Sequence[str], preset: str, more_files: Sequence[str], overrides: Sequence[str]
) -> None:
    """Make the corpus of JOB_FILE, or resume it; with --check, check the training texts in FILES.

    FILES are Parquet, JSON Lines (also .zst), or .txt with an empty line between texts. Exit codes of --check: 0 all
    texts keep the grammar; 1 some do not (each is listed with position and rule), or there are no texts.
    """
    if files:
        _check([*files, *([job_file] if job_file else []), *more_files], preset)
        return
    if job_file is None or more_files:
        raise click.UsageError("give one JOB_FILE, or --check FILE...")
    config = load_corpus(job_file, overrides)
    prepare_ray_env(config.cluster)
    from pipeline.corpus.corpus_job import prepare_corpus  # noqa: PLC0415 - DuckDB is for this verb alone

    prepared = prepare_corpus(config)
    for remark in prepared.remarks:
        echo(f"joyfleet: note: {remark}", err=True)
    _run(prepared)


def _run(prepared: PreparedCorpus) -> None:
    log_path = new_log()
    terminal = redirect_output(log_path)
    started = time.monotonic()
    error = None
    try:
        with stop_on_signals() as stop:
            stop.drain_from_now_on()
            _drive(prepared, terminal, stop.asked)
    except PipelineError as err:
        error = err
    except FileNotFoundError as err:
        error = PipelineError(f"{err}: staged by an earlier step, and gone; run again")
    # Another run that ended the job took away what this one was reading.
    if error is not None and (isinstance(error, Interrupted) or not prepared.finished):
        terminal.err.write(f"joyfleet: {prepared.config.output}: {printable(error)}\n")
        sys.exit(error.exit_code)
    _summary(prepared, terminal, time.monotonic() - started, log_path)


def _drive(prepared: PreparedCorpus, terminal: Terminal, stop: threading.Event) -> None:
    from pipeline.corpus.corpus_job import remove_staged, steps  # noqa: PLC0415 - as above

    if prepared.finished:
        remove_staged(prepared)  # a run that was killed between its last two lines leaves it
        return
    # Ray reads its environment when it is imported, so not at the top.
    from pipeline.flow.cluster import connected  # noqa: PLC0415

    with connected(prepared.config.cluster) as cluster:
        for step in steps(prepared):
            since = time.monotonic()
            if step.here is not None:
                _here(step.here, stop)
            elif step.items:
                _everywhere(step, prepared, cluster, terminal, stop)
            seconds = time.monotonic() - since
            log.info("step=%s items=%d seconds=%.1f", step.name, len(step.items), seconds)


def _everywhere(
    step: Step, prepared: PreparedCorpus, cluster: Cluster, terminal: Terminal, stop: threading.Event
) -> None:
    from pipeline.flow.parallel_map import parallel_map  # noqa: PLC0415 - as above

    assert step.work is not None
    shown_at = time.monotonic() - EVERY_S
    stall_s = prepared.config.cluster.stall_timeout_s
    for done, _ in enumerate(parallel_map(step.work, step.items, cluster, stop, stall_s), 1):
        if time.monotonic() - shown_at >= EVERY_S or done == len(step.items):
            shown_at = time.monotonic()
            terminal.err.write(f"{step.name} {done:,}/{len(step.items):,}\n")


def _here(work: Callable[[], object], stop: threading.Event) -> None:
    """Run a step in a thread, so that a signal is heard meanwhile: what it has not put is done again."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as err:  # noqa: BLE001 - handed to the main thread, which raises it
            errors.append(err)
        ended.set()

    threading.Thread(target=run, name="step", daemon=True).start()
    while not ended.wait(0.2):
        if stop.is_set():
            raise Interrupted("stopped; run the same command again to go on")
    if errors:
        raise errors[0]


def _summary(prepared: PreparedCorpus, terminal: Terminal, seconds: float, log_path: Path) -> None:
    from pipeline.corpus.corpus_report import read_texts  # noqa: PLC0415 - as above

    texts = read_texts(prepared.store)
    console = Console(file=terminal.out, soft_wrap=True, highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False)
    tokens = sum(row["n_tokens"] or 0 for row in texts)
    total = sum(row["rows"] for row in texts)
    sides = {split: sum(row["rows"] for row in texts if row["split"] == split) for split in ("train", "validation")}
    for name, value in (
        ("output", prepared.config.output),
        ("recipe", prepared.recipe.fingerprint),
        (
            "texts",
            f"{total:,}: " + ", ".join(f"{number:,} {split}" for split, number in sides.items()),
        ),
        ("tokens", f"{tokens:,} without padding" if tokens else "not counted, no tokenizer"),
        ("this run", clock(seconds)),
        ("card", f"{prepared.store.url}/README.md"),
    ):
        table.add_row(name, value)
    console.print(table)
    console.print(f"log: {log_path}", markup=False)


def _check(files: Sequence[str], preset: str) -> None:
    """List every text that breaks the grammar; exit with 1 if there is one."""
    from pipeline.corpus.check_texts import check_file  # noqa: PLC0415 - as above
    from pipeline.corpus.text_grammar import profile_of  # noqa: PLC0415 - as above

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
