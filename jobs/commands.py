"""The command line: `joyfleet VERB ...`, or `python -m jobs VERB ...`. An error is one message and an exit code."""

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


def run() -> int:
    """Run the command that the process was started with; return its exit code. A `PipelineError` is one message."""
    try:
        cli()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except PipelineError as err:
        echo(f"joyfleet: {err}", err=True)
        return err.exit_code
    return 0
