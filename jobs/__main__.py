"""`joyfleet VERB ...`, also as `python -m jobs VERB ...`: one module a verb, one line an error."""

from __future__ import annotations

import sys

import click

from jobs.caption import caption
from jobs.corpus import corpus
from jobs.draw import draw
from jobs.export import export
from jobs.plan import plan
from jobs.playground import playground
from jobs.preview import preview
from jobs.prompts import prompts
from jobs.quality import quality
from jobs.report import report
from jobs.status import status
from jobs.submit import submit
from jobs.tend import clean, retry
from jobs.terminal import echo
from jobs.verify import verify
from pipeline.errors import PipelineError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="joyfleet")
def cli() -> None:
    """Caption image datasets of any size with JoyCaption: shards in, Parquet out, every image exactly once.

    Exit codes: 0 all done; 1 failed; 2 the config or the command line is wrong; 3 done, but shards are in
    quarantine; 4 interrupted, resumable.
    """


for verb in (
    caption,
    clean,
    corpus,
    draw,
    export,
    plan,
    playground,
    preview,
    prompts,
    quality,
    report,
    retry,
    status,
    submit,
    verify,
):
    cli.add_command(verb)


def main() -> None:
    """Run the command line; errors of ours end it with one message and their exit code."""
    try:
        cli()
    except PipelineError as err:
        echo(f"joyfleet: {err}", err=True)
        sys.exit(err.exit_code)


if __name__ == "__main__":
    main()
