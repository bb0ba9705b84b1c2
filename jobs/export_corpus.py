"""`joyfleet export-corpus CORPUS FOLDER --to FORM`: writes a finished corpus as the files of a trainer.

The options are the fields of `CorpusExportConfig`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from jobs.push import push_options, refuse_push, send
from jobs.signals import SIGNALS
from pipeline.config.corpus_export_config import CorpusExportConfig, flag_of
from pipeline.corpus.export.export_corpus import export_corpus as write_export
from pipeline.corpus.export.forms import FORMS
from pipeline.errors import ConfigError
from pipeline.export.hub import Push
from pipeline.storage import open_store
from schemas.record import Split

Command = Callable[..., None]

PUSHED = ("README.md", *(f"{split}/**" for split in Split))
"""Files of a folder that --push sends."""


def _options(command: Command) -> Command:
    """Add one option to a command for each field of `CorpusExportConfig`; the config has the defaults."""
    for name, field in reversed(CorpusExportConfig.model_fields.items()):
        command = _option(name, field)(command)
    return command


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    text = (field.description or "").replace("\n", " ")
    if name == "to":
        listed = ", ".join(f"{form.name} ({form.summary})" for form in FORMS.values())
        return click.option("--to", "to", required=True, metavar="FORM", help=f"{text} One of: {listed}.")
    honoured = ", ".join(form.name for form in FORMS.values() if name in form.honours)
    return click.option(flag_of(name), name, help=f"{text} For {honoured}.")


@click.command()
@click.argument("corpus")
@click.argument("folder")
@_options
@push_options("export-corpus", "Training data by JoyFleet")
def export_corpus(
    corpus: str,
    folder: str,
    push: Push | None,
    **options: Any,  # noqa: ANN401 - of a CorpusExportConfig
) -> None:
    """Write the finished corpus CORPUS into the local FOLDER as a trainer reads it.

    The same command makes the same files; an export that was stopped begins again.
    """
    if "://" in folder:
        raise ConfigError(
            f"export-corpus: {folder}: not a local folder; trainers open local files, so give a local one and copy it"
        )
    config = _config(options)
    refuse_push(push, folder)
    SIGNALS.end_at_once(f"{folder}: stopped; run the same command again, which begins again")
    store = open_store(corpus)
    with click.progressbar(length=1, label="export", file=sys.stderr) as bar:

        def show(num_done: int, num_files: int) -> None:
            bar.length = num_files
            bar.update(num_done - bar.pos)

        exported = write_export(store, Path(folder), config, show)
    for (split, name), number in sorted(exported.rows.items()):
        click.echo(f"{number:,} rows of {split}{'' if name == 'default' else f' in {split}/{name}'}")
    for reason, number in sorted(exported.counts.items()):
        if number:
            click.echo(f"  {reason.replace('_', ' ')}: {number:,}")
    send(push, folder, PUSHED)


def _config(options: dict[str, Any]) -> CorpusExportConfig:
    try:
        return CorpusExportConfig(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as err:
        raise ConfigError(f"export-corpus: {'; '.join(map(_fault, err.errors(include_url=False)))}") from err


def _fault(error: ErrorDetails) -> str:
    place = f"{flag_of(str(error['loc'][0]))} {error['input']}: " if error["loc"] else ""
    return place + error["msg"].removeprefix("Value error, ")
