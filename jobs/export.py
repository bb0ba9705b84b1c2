"""`joyfleet export OUTPUT FOLDER --to FORM`: writes its captions in a form that other programs read.

The options of an export are the fields of `ExportConfig`.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jobs.output import open_output, source_option
from jobs.progress_line import size
from jobs.push import push_options, refuse_push, send
from jobs.signals import SIGNALS
from pipeline.config.export_config import ExportConfig, flag_of
from pipeline.errors import ConfigError, Interrupted
from pipeline.export import Captioned, Exported, run_export
from pipeline.export.form import FILTERS, Form
from pipeline.export.forms import FORMS, form_of
from pipeline.export.hub import Push
from pipeline.ledger.shard_plan import Plan
from pipeline.prompts.request import CUSTOM
from pipeline.storage import open_store

QUARANTINED = 3
"""Exit code: done, but shards are in quarantine."""

PLANNING = "stopped before the first shard; run the same command again"
"""The message when a signal ends an export before anything is in flight."""

PUSHED = ("README.md", "data/**")
"""Files of a folder that --push sends: those of `datasets`."""

MAX_WORKERS = 8
"""Default limit: each worker holds a shard and its export in memory."""

Command = Callable[..., None]


def _options(command: Command) -> Command:
    """Add one option to a command for each field of `ExportConfig`; the config has the defaults."""
    for name, field in reversed(ExportConfig.model_fields.items()):
        command = _option(name, field)(command)
    return command


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag, text = flag_of(name), (field.description or "").replace("\n", " ")
    if name == "to":
        listed = ", ".join(f"{form.name} ({form.summary})" for form in FORMS.values())
        return click.option(flag, name, required=True, metavar="FORM", help=f"{text} One of: {listed}.")
    honoured = [form.name for form in FORMS.values() if name in FILTERS | form.honours | form.honours_with_template]
    text += "" if len(honoured) == len(FORMS) else f" For {', '.join(honoured)}."
    annotation: Any = field.annotation
    if annotation in (bool, bool | None):
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    return click.option(flag, name, multiple=get_origin(annotation) is tuple, default=None, help=text)


@click.command()
@click.argument("output")
@click.argument("folder", required=False)
@_options
@click.option("--workers", type=click.IntRange(1), help=f"Processes; by default one per CPU, at most {MAX_WORKERS}.")
@push_options("export", "Captions by JoyFleet", "hf: ")
@source_option
def export(
    output: str,
    folder: str | None,
    sources: Sequence[str],
    workers: int | None,
    push: Push | None,
    **options: Any,  # noqa: ANN401 - the options of an ExportConfig, which checks them
) -> None:
    """Write OUTPUT's committed captions into FOLDER; the same command resumes an export, and adds new shards.

    By default captions with status ok. --to beside needs no FOLDER: it writes texts next to the source's images.
    """
    SIGNALS.end_at_once(PLANNING)
    config = _config(options)
    form = form_of(config)
    if push and not form.pushable:
        pushable = ", ".join(form.name for form in FORMS.values() if form.pushable)
        raise ConfigError(f"export: --push sends a data set of --to {pushable}, not {form.name}")
    opened = open_output(output, sources)
    others = [open_output(url) for url in config.outputs]
    _check_modes(config, [opened.job, *(other.job for other in others)])
    reads = _reads_source(form, config)
    # If the source is read again, its current URLs are used, and a shard that changed is refused.
    plan = opened.listed_plan() if reads else opened.plan
    destination = open_store(_destination(folder, plan, form))
    refuse_push(push, destination.url)
    captioned = Captioned(
        store=opened.store,
        run=opened.run,
        plan=plan,
        source=opened.source if reads else opened.described_source,
        max_bytes=opened.images.max_bytes,
        schemas=opened.schemas | {slot: schema for other in others for slot, schema in other.schemas.items()},
        others=[(other.store, other.run, other.plan) for other in others],
    )
    count = workers or min(os.cpu_count() or 1, MAX_WORKERS)
    with click.progressbar(length=1, label="export", file=sys.stderr) as bar:

        def show(exported: Exported, num_shards: int) -> None:
            bar.length = num_shards
            bar.update(exported.num_shards - bar.pos)
            # Shards in flight, also those of other processes, are finished.
            if SIGNALS.drain().is_set() and exported.num_shards < num_shards:
                raise Interrupted(
                    f"{destination.url}: stopped with {exported.num_shards:,} of {num_shards:,} shards exported; "
                    "shards in flight were finished too; run the same command again to resume"
                )

        exported = run_export(captioned, destination, config, count, show)
    _summarise(exported, destination.url)
    send(push, destination.url, PUSHED)
    if exported.num_quarantined:
        sys.exit(QUARANTINED)


def _config(options: Mapping[str, Any]) -> ExportConfig:
    """Build the config from the options that were given."""
    try:
        return ExportConfig(**{name: value for name, value in options.items() if value not in (None, ())})
    except ValidationError as err:
        raise ConfigError(f"export: {'; '.join(map(_fault, err.errors(include_url=False)))}") from err


def _check_modes(config: ExportConfig, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a weight of a mode that no caption of the jobs has."""
    slots = [slot for job in jobs for slot in job.get("captions", ())] if config.weighted_modes else []
    modes = sorted({str(request.get("mode") or CUSTOM) for slot in slots for request in slot.get("mix") or [slot]})
    for mode, weight in config.weighted_modes.items():
        if mode not in modes:
            raise ConfigError(
                f"export: --weight mode:{mode}={weight}: the job asks no mode {mode!r}; found: {', '.join(modes)}"
            )


def _fault(error: ErrorDetails) -> str:
    place = f"{flag_of(str(error['loc'][0]))} {error['input']}: " if error["loc"] else ""
    return place + error["msg"].removeprefix("Value error, ")


def _reads_source(form: Form, config: ExportConfig) -> bool:
    joins = "join" in form.honours and config.join is not False
    return joins or form.beside_source or form.reads_images(config)


def _destination(folder: str | None, plan: Plan, form: Form) -> str:
    if folder is not None:
        return folder
    if not form.beside_source:
        raise ConfigError("export: FOLDER is missing; only --to beside needs none; give the folder to write to")
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
        click.echo(f"note: {exported.num_quarantined:,} shards are in quarantine; `joyfleet status` names them")
