"""The verbs in their groups, each in a module of its own that is imported when the verb is used.

The module of a verb and its command have the verb's name, with `_` for `-`.
"""

from collections.abc import Mapping
from importlib import import_module
from itertools import chain

import click

from pipeline.config.suggestions import did_you_mean

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Run": ("caption", "preview", "plan", "index", "doctor", "submit"),
    "Look": ("status", "show", "report", "quality", "prompts", "playground", "review"),
    "Tend": ("retry", "amend", "unquarantine", "clean", "verify"),
    "Deliver": ("export", "corpus", "corpus-card", "export-corpus"),
    "Develop": ("make-demo-data",),
}

RENAMED_VERBS: Mapping[str, str] = {"draw": "make-demo-data"}
"""Old name to new name. `retry` without `--rows` became `unquarantine`: `retry` itself says so."""

NAME_WIDTH = max(map(len, chain.from_iterable(GROUPS.values())))


class VerbGroup(click.Group):
    """The group of all verbs. Its help lists them by group, with their first sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(chain.from_iterable(GROUPS.values()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = cmd_name.replace("-", "_")
        return getattr(import_module(f"jobs.{name}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb, names = args[0], self.list_commands(ctx)
        if verb in RENAMED_VERBS:
            raise click.UsageError(f"{verb} was renamed; use `joyfleet {RENAMED_VERBS[verb]}`", ctx)
        if not verb.startswith("-") and verb not in names:
            listed = f"allowed: {', '.join(names)}{did_you_mean(verb, names)}"
            raise click.UsageError(f"there is no verb {verb!r}; {listed}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group, names in GROUPS.items():
            with formatter.section(group):
                rows = [(name.ljust(NAME_WIDTH), _first_sentence(self.get_command(ctx, name))) for name in names]
                formatter.write_dl(rows)


def _first_sentence(command: click.Command | None) -> str:
    """The first sentence of a verb's help, whole: click's short help ends in the middle of a line."""
    text = " ".join(((command and command.help) or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."
