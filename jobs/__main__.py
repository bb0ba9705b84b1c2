"""`joyfleet VERB ...`, also as `python -m jobs VERB ...`. An error is one message and an exit code."""

from __future__ import annotations

import sys

import click

from jobs.terminal import echo
from jobs.verbs import VerbGroup
from pipeline.errors import PipelineError


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="joyfleet")
def cli() -> None:
    """Caption image data sets of any size with JoyCaption: shards in, Parquet out, every image exactly once.

    Exit codes: 0 all done; 1 failed; 2 the config or the command line is wrong; 3 done, but shards are in
    quarantine; 4 interrupted, resumable.
    """


def main() -> None:
    """Run the command line. A `PipelineError` ends it with one message and the error's exit code."""
    try:
        cli()
    except PipelineError as err:
        echo(f"joyfleet: {err}", err=True)
        sys.exit(err.exit_code)


if __name__ == "__main__":
    main()
