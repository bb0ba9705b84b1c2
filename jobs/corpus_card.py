"""`joyfleet corpus-card CORPUS`: writes the card of a finished corpus again, with the result of a training."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.push import push_options, refuse_push, send
from jobs.signals import SIGNALS
from pipeline.corpus import corpus_layout
from pipeline.export.hub import Push
from pipeline.storage import open_store


@click.command()
@click.argument("corpus")
@click.option(
    "--training",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Show the result of a training on this corpus, which the notebook train_on_a_corpus writes.",
)
@push_options("corpus-card", "Card by JoyFleet")
def corpus_card(corpus: str, training: str | None, push: Push | None) -> None:
    """Write the card of the finished corpus CORPUS again.

    Figures and README.md are replaced, texts and records are not read. A result of a training stays in the corpus, so
    later cards show it too.
    """
    SIGNALS.end_at_once(f"{corpus}: stopped; run the same command again")
    store = open_store(corpus)
    refuse_push(push, store.url)
    # Only this verb and `corpus` need DuckDB and matplotlib.
    from pipeline.corpus.report.card_figures import check_figures  # noqa: PLC0415
    from pipeline.corpus.report.corpus_report import rewrite_card  # noqa: PLC0415
    from pipeline.corpus.report.training_result import read_result  # noqa: PLC0415

    check_figures()
    rewrite_card(store, read_result(Path(training)) if training else None, training or "")
    click.echo(f"{store.url}/{corpus_layout.CARD}")
    send(push, store.url, corpus_layout.DATA_SET)
