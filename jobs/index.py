"""`joyfleet index SOURCE OUTPUT`: one row per image, with its hashes, size, format and fields, on Ray."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from jobs.job_file import read_job, set_option
from jobs.logs import Terminal, new_log, redirect_output
from jobs.progress_line import EVERY_S, clock, size
from jobs.signals import SIGNALS
from jobs.terminal import echo, print_table, printable
from pipeline.config.index_config import IndexConfig, index_of_job
from pipeline.config.load import parse_config
from pipeline.errors import ConfigError, PipelineError
from pipeline.flow.prepared_index import PreparedIndex, prepare_index
from pipeline.flow.ray_env import prepare_ray_env
from pipeline.readers.metadata_fields import EVERYTHING
from schemas.index import Hash

if TYPE_CHECKING:
    from pipeline.flow.index_driver import IndexResult

JOB_SUFFIXES = (".yaml", ".yml")
"""Of a SOURCE that is a job file."""

QUARANTINED = 3
"""Exit code: done, but shards are in quarantine."""

PLANNING = "stopped while planning; no image was read; run the same command again"
"""The message when a signal ends a run before anything is in flight."""


@click.command()
@click.argument("source", type=click.Path())
@click.argument("output")
@click.option(
    "--hash",
    "hashes",
    default=Hash.SHA256.value,
    show_default=True,
    metavar="NAMES",
    help="What is hashed: sha256 (of the bytes), phash (of the pixels, which are decoded for it), both with a comma, "
    "or none.",
)
@click.option("--field", "fields", multiple=True, help="Keep this field of the source rows; repeatable, * for all.")
@click.option("--extend", is_flag=True, help="Also index the shards that SOURCE has gained since the first run.")
@set_option
def index(
    source: str, output: str, hashes: str, fields: Sequence[str], overrides: Sequence[str], *, extend: bool
) -> None:
    """Index the images of SOURCE into OUTPUT: one row each with hashes, size, format and fields; resumes.

    SOURCE is a job file (.yaml), whose `source`, `images` and `cluster` are used, or the URL of shards. Conditions of
    the job file are not applied: an index has a row for every image. Without phash only headers are read.
    """
    SIGNALS.end_at_once(PLANNING)
    config = index_config(source, output, hashes_of(hashes), fields, overrides)
    prepare_ray_env(config.cluster)
    prepared = prepare_index(config, extend=extend)
    for remark in prepared.remarks:
        echo(f"joyfleet: note: {remark}", err=True)
    sys.exit(_run(prepared))


def hashes_of(text: str) -> tuple[Hash, ...]:
    """Return the hashes that `--hash` names.

    Raises:
        ConfigError: it names others.
    """
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    try:
        return tuple(dict.fromkeys(map(Hash, names)))
    except ValueError as err:
        raise ConfigError(f"--hash {text}: allowed: {', '.join(Hash)}, both with a comma, or none") from err


def index_config(
    source: str, output: str, hashes: tuple[Hash, ...], fields: Sequence[str], overrides: Sequence[str]
) -> IndexConfig:
    """Return the config of an index, of a job file or a URL.

    Raises:
        ConfigError: the job file or an override has a mistake.
    """
    if Path(source).suffix in JOB_SUFFIXES:
        config = index_of_job(read_job(source, overrides), output, hashes)
    else:
        data = {"source": source, "output": output, "hashes": [str(name) for name in hashes]}
        config = parse_config(IndexConfig, data, overrides, origin="joyfleet index")
    kept = config.source.metadata_fields
    if EVERYTHING in kept:
        return config
    added = tuple(name for name in fields if name not in kept)
    return config.model_copy(update={"source": config.source.model_copy(update={"metadata_fields": (*kept, *added)})})


def _run(prepared: PreparedIndex) -> int:
    # Ray reads its environment when it is imported, so not at the top.
    from pipeline.flow.index_driver import IndexResult, run_index  # noqa: PLC0415

    log_path = new_log()
    terminal = redirect_output(log_path)
    result = IndexResult()
    try:
        run_index(prepared, result, ImageLines(terminal.err, len(prepared.todo)), SIGNALS.drain())
    except PipelineError as err:
        terminal.err.write(f"joyfleet: {prepared.config.output}: {printable(err)}\n")
        return err.exit_code
    _summary(prepared, result, terminal, log_path)
    return QUARANTINED if result.quarantined or prepared.num_quarantined else 0


class ImageLines:
    """Prints a line of progress every 30 s, and one at the end."""

    def __init__(self, out: TextIO, num_shards: int) -> None:
        self._out = out
        self._num_shards = num_shards
        self._printed_at = time.monotonic()

    def __call__(self, result: IndexResult) -> None:
        """Take the progress of the run."""
        num_done = result.num_shards + result.num_elsewhere + len(result.quarantined)
        if num_done == self._num_shards or time.monotonic() - self._printed_at >= EVERY_S:
            self._printed_at = time.monotonic()
            rate = result.num_images / result.seconds if result.seconds else 0.0
            self._out.write(
                f"shards {num_done:,}/{self._num_shards:,}  images {result.num_images:,} ({rate:,.0f}/s)  "
                f"{clock(result.seconds)}\n"
            )
            self._out.flush()


def _summary(prepared: PreparedIndex, result: IndexResult, terminal: Terminal, log_path: Path) -> None:
    num_planned, num_before = len(prepared.plan.shards), prepared.num_indexed
    num_indexed = num_before + result.num_shards + result.num_elsewhere
    rate = f", {result.num_images / result.seconds:,.0f} images/s" if result.seconds else ""
    elsewhere = f", {result.num_elsewhere:,} by another run" if result.num_elsewhere else ""
    rows = [
        ("output", prepared.config.output),
        ("index", f"{prepared.recipe.fingerprint}, hashes {', '.join(prepared.config.hashes) or 'none'}"),
        ("shards", f"{num_indexed:,} of {num_planned:,} indexed, {result.num_shards:,} by this run{elsewhere}"),
        ("images", f"{result.num_images:,}, {size(result.num_bytes)}; {result.num_errors:,} cannot be read"),
        ("this run", f"{clock(result.seconds)}{rate}"),
    ]
    print_table(terminal.out, rows)
    for left_out in result.left_out:
        echo(f"note: {left_out}", file=terminal.out)
    for shard, message in result.quarantined.items():
        echo(f"quarantine: {shard}: {message}", file=terminal.out)
    if prepared.num_quarantined:
        echo(
            f"note: {prepared.num_quarantined:,} shards are in quarantine since earlier runs; `joyfleet unquarantine "
            f"{prepared.config.output}` has them read again",
            file=terminal.out,
        )
    echo(f"log: {log_path}", file=terminal.out)
