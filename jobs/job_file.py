"""What the verbs that take a job file have in common: `--set`, a source that grows, and a check of the whole file."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from pipeline.config import JobConfig, load_job
from pipeline.config.load import JobChecks
from pipeline.errors import ConfigError
from pipeline.ledger.parts_record import Part
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


def growth_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--extend`, `--follow` and `--part` to a verb that captions a job."""
    extend = click.option(
        "--extend", is_flag=True, help="Also caption the shards that the source has gained since the first run."
    )
    follow = click.option(
        "--follow",
        "every_s",
        type=click.FloatRange(1),
        metavar="SECONDS",
        help="Like --extend, and list the source again every SECONDS seconds for new shards, until interrupted.",
    )
    part = click.option(
        "--part",
        metavar="K/N",
        callback=lambda _context, _option, text: None if text is None else Part.parse(text),
        help="Caption the K-th of N equal parts of the plan: for N drivers on one output, each with its own Ray or all "
        "on one cluster.",
    )
    return extend(follow(part(command)))


def refuse_part_that_follows(every_s: float | None, part: Part | None) -> None:
    """Refuse `--part` together with `--follow`.

    Raises:
        ConfigError: both are given.
    """
    if every_s is not None and part is not None:
        raise ConfigError(
            f"--part {part} with --follow: a run that follows a source captions all of its new shards; leave one of "
            "the two out. `--part K/N --extend` captions a part of what the source has gained until now"
        )


def read_job(path: str, overrides: Sequence[str]) -> JobConfig:
    """Read a job file.

    Raises:
        ConfigError: lists every mistake in it, also modes, tones, lengths and options that the model does not have, and
            rules that do not exist.
    """
    return load_job(path, overrides, JOB_CHECKS)
