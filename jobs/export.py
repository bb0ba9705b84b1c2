"""`joyfleet export OUTPUT FOLDER --to FORM`: its captions in the form that others read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from pydantic import ValidationError

from jobs.output import open_output, source_option
from jobs.progress import size
from pipeline.config.export import ONE_TEXT, ExportConfig, Target
from pipeline.errors import ConfigError
from pipeline.export import Captioned, Exported, run_export
from pipeline.export.hub import push_folder
from pipeline.ledger.plan import Plan
from pipeline.storage import open_store
from schemas.status import Status

QUARANTINED = 3
"""Exit code: done, but shards are in quarantine."""

MAX_WORKERS = 8
"""By default: each holds a shard and its export in memory."""


@click.command()
@click.argument("output")
@click.argument("folder", required=False)
@click.option("--to", "to", type=click.Choice([one.value for one in Target]), required=True, help="The form.")
@click.option("--slot", "slots", multiple=True, help="A slot to take; by default all.")
@click.option("--template", help="One text of several, as '{tags}. {long}'; also {key} and {source.field}.")
@click.option("--column", default="caption", show_default=True, help="Tables: the text's column.")
@click.option("--field", "fields", multiple=True, help="Tables: a further column of the caption rows, such as mode.")
@click.option("--status", "statuses", multiple=True, type=click.Choice([one.value for one in Status]), default=["ok"])
@click.option("--mode", "modes", multiple=True, help="Only captions of this mode.")
@click.option("--without-flag", "without_flags", multiple=True, help="No caption with this flag, such as truncated.")
@click.option("--min-words", type=click.IntRange(0))
@click.option("--max-words", type=click.IntRange(0))
@click.option("--join/--no-join", default=True, help="Tables: with the columns of a Parquet source.")
@click.option("--images/--no-images", default=None, help="parquet, hf: with the images; by default hf alone.")
@click.option("--suffix", default="txt", show_default=True, help="Side-cars: extension of the texts.")
@click.option("--workers", type=click.IntRange(1), help=f"Processes; by default one per CPU, at most {MAX_WORKERS}.")
@click.option("--push", metavar="OWNER/NAME", help="hf: send the folder to the Hugging Face hub afterwards.")
@click.option("--private", is_flag=True, help="--push: as a private data set.")
@source_option
def export(
    output: str,
    folder: str | None,
    sources: Sequence[str],
    workers: int | None,
    push: str | None,
    private: bool,
    **options: Any,  # noqa: ANN401 - the options of an ExportConfig, which checks them
) -> None:
    """Write OUTPUT's committed captions into FOLDER; run it again to go on where it stopped, or to add new shards.

    By default captions with status ok. --to beside needs no FOLDER: texts go beside the source's images.
    """
    config = _config(options)
    if push and config.to is not Target.HF:
        raise ConfigError(f"export: --push sends a data set of --to hf, not {config.to}")
    if private and not push:
        raise ConfigError("export: --private holds for --push alone")
    opened = open_output(output, sources)
    reads = config.with_images or config.join or config.to in ONE_TEXT
    # Where the source is read again: the URLs of today, and one that changed is refused.
    plan = opened.listed_plan() if reads else opened.plan
    destination = open_store(_destination(folder, plan, config))
    captioned = Captioned(
        store=opened.store,
        run=opened.run,
        plan=plan,
        source=opened.source if reads else opened.described_source,
        max_bytes=opened.max_bytes,
    )
    count = workers or min(os.cpu_count() or 1, MAX_WORKERS)
    with click.progressbar(length=1, label="export", file=sys.stderr) as bar:

        def show(exported: Exported, num_shards: int) -> None:
            bar.length = num_shards
            bar.update(exported.num_shards - bar.pos)

        exported = run_export(captioned, destination, config, count, show)
    _summarise(exported, destination.url)
    if push:
        click.echo(push_folder(destination.url, push, private=private))
    if exported.num_quarantined:
        sys.exit(QUARANTINED)


def _config(options: dict[str, Any]) -> ExportConfig:
    try:
        return ExportConfig(**options)
    except ValidationError as err:
        faults = (error["msg"].removeprefix("Value error, ") for error in err.errors(include_url=False))
        raise ConfigError(f"export: {'; '.join(faults)}") from err


def _destination(folder: str | None, plan: Plan, config: ExportConfig) -> str:
    if folder is not None:
        return folder
    if config.to is not Target.BESIDE:
        raise ConfigError("export: FOLDER is missing; only --to beside knows it by itself")
    return next(iter(plan.shards.values())).url.rpartition("#")[0] or "."


def _summarise(exported: Exported, url: str) -> None:
    click.echo(
        f"{exported.num_exported:,} of {exported.num_images:,} images of {exported.num_shards:,} shards, "
        f"{size(exported.num_bytes)}, in {url}"
    )
    for cause, count in sorted(exported.dropped.items()):
        click.echo(f"  left out: {count:,} {cause}")
    if exported.num_uncommitted:
        click.echo(f"note: {exported.num_uncommitted:,} shards have no captions yet; the same command adds them later")
    if exported.num_quarantined:
        click.echo(f"note: {exported.num_quarantined:,} shards are in quarantine; `joyfleet retry` takes them up")
