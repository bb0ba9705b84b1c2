"""The options --push and --private, of every verb that makes a data set."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

from jobs.signals import SIGNALS
from jobs.terminal import echo
from pipeline.errors import ConfigError
from pipeline.export.hub import Push, check_push, push_folder

Command = Callable[..., None]


def push_options(verb: str, message: str, forms: str = "") -> Callable[[Command], Command]:
    """Add the options to a command, which gets them as one argument: `push`, a `Push` or None.

    Args:
        verb: the name of the command.
        message: of the commit on the hub.
        forms: what --push takes, for the help, such as `hf: `.
    """

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def with_push(*args: Any, push: str | None, private: bool, **options: Any) -> None:  # noqa: ANN401 - click's
            if private and not push:
                raise ConfigError(f"{verb}: --private needs --push; add --push, or leave --private out")
            wanted = Push(repository=push, private=private, verb=verb, message=message) if push else None
            command(*args, push=wanted, **options)

        text = f"{forms}Send the data set to the Hugging Face hub afterwards."
        option = click.option("--push", metavar="OWNER/NAME", help=text)
        return option(click.option("--private", is_flag=True, help="--push: as a private data set.")(with_push))

    return add


def refuse_push(push: Push | None, folder: str) -> None:
    """Refuse an upload that cannot be done, before other work begins.

    Raises:
        ConfigError: see `check_push`.
    """
    if push is not None:
        check_push(push, folder)


def send(push: Push | None, folder: str, patterns: Sequence[str], out: TextIO | None = None) -> None:
    """Upload a finished folder and print its URL on the hub; without a push do nothing.

    Raises:
        PipelineError: see `push_folder`.
    """
    if push is None:
        return
    SIGNALS.end_at_once(f"stopped while pushing to {push.repository}; {folder} is complete; run the same command again")
    echo(push_folder(folder, push, patterns), file=out)
