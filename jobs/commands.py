"""The verbs by name: a verb's module is imported when it is called, since some take seconds."""

from __future__ import annotations

from importlib import import_module

import click

from jobs.terminal import echo
from pipeline.errors import PipelineError

VERBS = {
    "caption": (
        "jobs.caption",
        "Caption the images of JOB_FILE's source into its output; run it again to go on where it stopped.",
    ),
    "clean": (
        "jobs.tend",
        "Remove what killed runs left in OUTPUT's staging; committed files are never touched.",
    ),
    "corpus": (
        "jobs.corpus",
        "Make the corpus of JOB_FILE, or go on with it where it stopped; with --check read FILES.",
    ),
    "draw": ("jobs.draw", "Draw IMAGES pictures of shapes into WebDataset and Parquet shards below FOLDER."),
    "export": (
        "jobs.export",
        "Write OUTPUT's committed captions into FOLDER; run it again to go on where it stopped, or to add new shards.",
    ),
    "plan": (
        "jobs.plan",
        "Check JOB_FILE, look at its source, and tell what the job would take: images, tokens, hours, money, requests.",
    ),
    "playground": (
        "jobs.playground",
        "Try prompts on single images in a browser, with JOB_FILE's engine and images; by default the stand-in's.",
    ),
    "preview": (
        "jobs.preview",
        "Caption a few images of JOB_FILE's source with its engine and show them on one page; writes no output.",
    ),
    "prompts": (
        "jobs.prompts",
        "List modes, tones, lengths and options, or print the exact prompt for given choices.",
    ),
    "quality": (
        "jobs.quality",
        "Measure OUTPUT's committed captions per mode and length; writes report/quality/*.parquet there.",
    ),
    "report": (
        "jobs.report",
        "Write one self-contained HTML page about OUTPUT's committed captions: OUTPUT/report/index.html.",
    ),
    "retry": (
        "jobs.tend",
        "Take the shards of OUTPUT out of quarantine, for the next `caption` to read; or ask ROWS again, at once.",
    ),
    "status": (
        "jobs.status",
        "Tell how far OUTPUT is: shards committed, staged, in quarantine and left, and what its runs told.",
    ),
    "submit": (
        "jobs.submit",
        "Run `caption JOB_FILE` on the Ray cluster at --address, show its log, end with its exit code.",
    ),
    "verify": (
        "jobs.verify",
        "Check that every source row of OUTPUT's plan has each slot exactly once; report every violation.",
    ),
}
"""Name to module and summary: the first sentence of the verb's help, which a test compares."""


class Verbs(click.Group):
    """A group that knows its verbs before they are imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in VERBS:
            return None
        verb: click.Command = getattr(import_module(VERBS[cmd_name][0]), cmd_name)
        return verb

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, VERBS[name][1]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="joyfleet")
def cli() -> None:
    """Caption image datasets of any size with JoyCaption: shards in, Parquet out, every image exactly once.

    Exit codes: 0 all done; 1 failed; 2 the config or the command line is wrong; 3 done, but shards are in
    quarantine; 4 interrupted, resumable.
    """


def run() -> int:
    """Run the command that the process was started with; return its exit code."""
    try:
        cli()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except PipelineError as err:
        echo(f"joyfleet: {err}", err=True)
        return err.exit_code
    return 0
