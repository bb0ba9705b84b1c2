"""`joyfleet review OUTPUT`: looks through doubtful captions in a browser on this machine, and writes an edits file."""

import getpass
import os
from collections.abc import Sequence
from pathlib import Path

import click

from jobs.output import open_output, source_option
from jobs.review_session import SIDE_PX, Kind, Review, read_decisions, rows_to_review
from jobs.signals import SIGNALS
from pipeline.config import ImagesConfig
from pipeline.errors import ConfigError
from pipeline.quality.edited_text import find_control_character
from pipeline.report.thumbnails import ImageSource


def _kinds(ctx: click.Context, option: click.Parameter, rows: str) -> list[Kind]:
    del option
    kinds = rows.split(",")
    if not set(kinds) <= set(Kind):
        raise click.BadParameter(f"{rows!r}; allowed: {', '.join(Kind)}, or both with a comma", ctx)
    return [Kind(kind) for kind in kinds]


@click.command()
@click.argument("output")
@click.option(
    "--edits",
    "edits_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="edits.csv",
    show_default=True,
    help="The file that the decisions are written to; a file of an earlier review is continued.",
)
@click.option("--editor", default=getpass.getuser, help="Your name in the edits; by default that of your account.")
@click.option(
    "--rows",
    "kinds",
    default=",".join(Kind),
    show_default=True,
    callback=_kinds,
    help="The rows to review: flagged, rejected, or both with a comma.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=7860, show_default=True)
@source_option
def review(
    output: str, edits_file: Path, editor: str, kinds: Sequence[Kind], port: int, sources: Sequence[str]
) -> None:
    """Look through flagged or rejected captions of OUTPUT in a browser: accept, reject or edit them with the keyboard.

    It changes nothing in OUTPUT: each decision goes to the file of --edits, which `joyfleet amend` applies.
    """
    session = _session(output, edits_file, editor, kinds, sources)
    # Read when gradio is imported: no version check, no statistics.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        from jobs.local_page import HOST, serve  # noqa: PLC0415 - an extra, seconds of imports
        from jobs.review_page import KEYS, build_app  # noqa: PLC0415 - as above
    except ImportError as err:
        raise ConfigError(f"review: needs the package {err.name}; run: pip install 'joyfleet[playground]'") from err
    SIGNALS.end_at_once(f"the review was stopped; its decisions are in {edits_file}")
    click.echo(f"{len(session.rows):,} rows to review: http://{HOST}:{port}/")
    try:
        serve(build_app(session), port, wait=True, head=KEYS)
    except OSError as err:  # gradio's for a port that is taken
        raise ConfigError(f"--port {port}: {err}; give another port") from err


def _check_file(edits_file: Path, editor: str) -> None:
    """Refuse before the first decision what would refuse it.

    Raises:
        ConfigError: names the option.
    """
    if edits_file.suffix.lower() != ".csv" or not edits_file.parent.is_dir():
        raise ConfigError(f"--edits {edits_file}: not a place for an edits file; give a .csv in a folder that exists")
    control = find_control_character(editor)
    if control or not editor.strip() or "\n" in editor:
        raise ConfigError(f"--editor {editor!r}: {control or 'not a name'}; give a name on one line")


def _session(output: str, edits_file: Path, editor: str, kinds: Sequence[Kind], sources: Sequence[str]) -> Review:
    _check_file(edits_file, editor)
    earlier = read_decisions(edits_file)
    opened = open_output(output, sources)
    rows = rows_to_review(opened.store, kinds, {(edit.shard, edit.row, edit.slot) for edit in earlier})
    if not rows:
        raise ConfigError(
            f"{output}: no committed row that is {' or '.join(kinds)} waits for a decision; allowed: --rows "
            f"{', '.join(Kind)}, or both"
        )
    images = ImagesConfig.model_validate(opened.job["images"])
    origin = ImageSource(opened.readable_plan().shards, opened.source, images, SIDE_PX)
    return Review(output, rows, origin, edits_file, editor, earlier, opened.schemas)
