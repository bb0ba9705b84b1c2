"""What the verbs that take a job file have in common: `--set`, and a check of the whole file at once."""

from collections.abc import Sequence

import click

from pipeline.config import JobConfig, load_job
from pipeline.config.load import JobChecks
from pipeline.prompts import caption_mistakes
from pipeline.quality import rule_mistakes

JOB_CHECKS = JobChecks(captions=caption_mistakes, rules=rule_mistakes)

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the file, such as sampling.temperature=0.4. It also overrides the environment.",
)


def read_job(path: str, overrides: Sequence[str]) -> JobConfig:
    """Read a job file.

    Raises:
        ConfigError: lists every mistake in it, also modes, tones, lengths and options that the model does not have, and
            rules that do not exist.
    """
    return load_job(path, overrides, JOB_CHECKS)
