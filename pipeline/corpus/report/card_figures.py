"""The figures of the card of a corpus, as PNG files beside the report tables."""

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.corpus import corpus_layout
from pipeline.corpus.report.census import BIN_WIDTHS, Census
from pipeline.corpus.report.training_result import TrainingResult
from pipeline.errors import ConfigError
from schemas.corpus_row import LengthClass, Task

HISTOGRAMS: Mapping[str, tuple[str, str]] = {
    "tokens": ("Texts by length", "tokens"),
    "characters": ("Texts by length", "characters"),
    "tags": ("Records by number of tags", "tags"),
    "short_words": ("Short captions by length", "words"),
    "long_words": ("Long captions by length", "words"),
}
"""Title and unit, in the order of the card."""

NO_LENGTH = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFigure:
    """A figure of the card."""

    name: str
    title: str
    """Also the text for readers who do not see the figure."""
    png: bytes

    @property
    def path(self) -> str:
        """In the corpus, and relative to the card."""
        return f"{corpus_layout.REPORT}/{self.name}.png"


def check_figures() -> None:
    """Refuse a corpus whose card cannot have figures, before any work is done.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("corpus: matplotlib is not installed; run: pip install 'joyfleet[corpus]'")


def draw_figures(census: Census) -> list[CardFigure]:
    """Return the figures of what was counted; a figure without a value is left out."""
    # Half a second to import, and Ray's workers import the modules of a corpus job too.
    from pipeline.figures.card_plots import bars_png, histogram_png  # noqa: PLC0415

    figures: list[CardFigure] = []
    for name, title, order in (
        ("task", "Texts by task", [str(task) for task in Task]),
        ("length", "Texts by length class", [*map(str, LengthClass), NO_LENGTH]),
    ):
        counts = _counted(census.rows(), name, order)
        if counts:
            figures.append(CardFigure(name=f"texts-by-{name}", title=title, png=bars_png(counts, title)))
    for name in _shown_histograms(census):
        title, unit = HISTOGRAMS[name]
        bins = {start: number for (kind, start), number in census.histograms.items() if kind == name}
        png = histogram_png(bins, BIN_WIDTHS[name], title, unit)
        figures.append(CardFigure(name=f"histogram-{name.replace('_', '-')}", title=f"{title}, in {unit}", png=png))
    return figures


def draw_training(result: TrainingResult) -> CardFigure:
    """Return the curve of the loss."""
    from pipeline.figures.card_plots import loss_png  # noqa: PLC0415 - as above

    title = "Loss of a training on this corpus"
    png = loss_png(result.losses, result.validation_losses, result.steps_per_loss)
    return CardFigure(name="training-loss", title=title, png=png)


def _shown_histograms(census: Census) -> list[str]:
    """Return the histograms that describe the whole corpus: characters only where tokens were not counted."""
    if not census.measured:
        return []
    known = {name for name, _ in census.histograms}
    return [name for name in HISTOGRAMS if name in known and not (name == "characters" and "tokens" in known)]


def _counted(rows: Sequence[Mapping[str, Any]], name: str, order: Sequence[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[NO_LENGTH if row[name] is None else str(row[name])] += row["rows"]
    return {value: counts[value] for value in order if counts[value]}
