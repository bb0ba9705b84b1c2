"""`joyfleet prompts`: the requests that a generation was trained on, and the exact prompt of one request."""

from collections.abc import Sequence

import click

from pipeline.config import RequestConfig
from pipeline.errors import ConfigError
from pipeline.models import Generation, generation_names, load_generation
from pipeline.prompts import build_request


@click.command()
@click.option("--generation", type=click.Choice(generation_names()), default="beta-one", show_default=True)
@click.option("--mode", help="Print the prompt of this mode; by default all modes are listed.")
@click.option("--tone", help="Tone of the mode; by default its first.")
@click.option("--length", help="A length class or a number of words.")
@click.option("--option", "options", multiple=True, help="Extra sentence of the prompt; may be given several times.")
@click.option("--name", help="For the option refer-by-name.")
def prompts(
    generation: str, mode: str | None, tone: str | None, length: str | None, options: Sequence[str], name: str | None
) -> None:
    """List modes, tones, lengths and options of a generation, or print the exact prompt of one request."""
    catalog = load_generation(generation)
    if mode is None:
        if tone or length or options or name:
            raise ConfigError("prompts: --tone, --length, --option and --name need --mode; add --mode")
        _list(catalog)
        return
    request = RequestConfig(mode=mode, tone=tone, options=tuple(options), name=name)
    words = int(length) if length and length.isdigit() else length
    built = build_request(catalog, request, words, slot="-", where="prompts")
    if built.system:
        click.echo(f"system: {built.system}", err=True)
    click.echo(built.prompt)


def _list(generation: Generation) -> None:
    click.echo(f"{generation.name}{'' if generation.servable else ' (prompts only: no checkpoint that vLLM loads)'}")
    click.echo(f"system: {generation.system or 'none'}")
    click.echo("\nmodes")
    for mode in generation.modes:
        click.echo(f"  {mode.name}{f' [{mode.tone}]' if mode.tone else ''}: {mode.no_length.strip()}")
    click.echo(f"\nlength classes: {', '.join(generation.length_classes) or 'none'}")
    counts = generation.word_counts
    words = f"{counts[0]} to {counts[-1]} in steps of {counts[1] - counts[0]}" if counts else "none"
    click.echo(f"words: {words}")
    click.echo("\noptions")
    for name, text in generation.options.items():
        click.echo(f"  {name}: {text}")
