"""`joyfleet show OUTPUT`: the captions of a few images, as text."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from jobs.output import open_output
from jobs.terminal import echo, printable
from pipeline.errors import ConfigError
from schemas.status import Status

MAX_WIDTH = 100
"""Characters of a line, where the terminal is wider."""
MAX_VALUE = 500
"""Characters of a metadata field that are printed."""

Images = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]


@click.command()
@click.argument("output")
@click.option("-n", "num_images", type=click.IntRange(1, 500), default=3, show_default=True, help="Images to print.")
@click.option(
    "--field", "fields", multiple=True, metavar="NAME", help="A field of the source to print; by default all are."
)
def show(output: str, num_images: int, fields: Sequence[str]) -> None:
    """Print the captions of a few images of OUTPUT beside their metadata in the source.

    Metadata are the fields that the job's `source.metadata_fields` keeps. The images come from committed shards, spread
    over the output; they are the same at each call.
    """
    from pipeline.report.caption_sample import sample_captions  # noqa: PLC0415 - pyarrow takes 0.3 s

    images = sample_captions(open_output(output).store, num_images)
    if not images:
        raise ConfigError(f"{output}: no shard is committed yet; `joyfleet status {output}` shows what is under way")
    _check_fields(images, fields)
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    for (shard, row), captions in images.items():
        echo(f"{shard}, row {row}, key {captions[0]['key']}", one_line=True)
        entries = [*_metadata(captions, fields), *map(_caption, captions)]
        labels = max(len(name) for name, _ in entries)
        for name, text in entries:
            indent = "  " + " " * labels + "  "
            echo(textwrap.fill(text, width, initial_indent=f"  {name:{labels}}  ", subsequent_indent=indent))
        echo()


def _check_fields(images: Images, fields: Sequence[str]) -> None:
    existing = sorted({name for captions in images.values() for name in _source(captions)})
    for field in fields:
        if field not in existing:
            raise ConfigError(
                f"--field {field}: none of these images has it; found: {', '.join(existing) or 'no field'} "
                "(source.metadata_fields of the job says which are kept)"
            )


def _source(captions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return json.loads(captions[0]["source"] or "{}")


def _metadata(captions: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name, value in _source(captions).items():
        if not fields or name in fields:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text = text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."
            yield printable(f"source.{name}", one_line=True), text


def _caption(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["status"] == Status.OK:
        return row["slot"], row["caption"]
    text = row["rejected_text"] if row["status"] == Status.REJECTED else row["message"]
    return row["slot"], f"[{row['status']}: {row['reason']}] {text or ''}".rstrip()
