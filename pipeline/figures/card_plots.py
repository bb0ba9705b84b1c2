"""Figures of a data set card, as PNG files: bars by name, histograms, and the loss of a training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.figures.canvas import ON_WHITE, new_figure, short_number, to_png

BARS = 40
"""Of a histogram, at most."""
SHOWN_SHARE = 0.995
"""Share of the values that a histogram shows one by one; the last bar has the others, which else squeeze the rest."""
BARS_HEIGHT_PX = 204
"""Of a figure with bars by name: enough for 8 names."""
LOSS_HEIGHT_PX = 230
SMOOTHED_SHARE = 0.04
"""Share of the steps of a training in the window of its running mean."""
LINE_POINTS = 2000
"""Points of a curve, at most: a figure has fewer pixels."""


def bars_png(counts: Mapping[str, int], title: str) -> bytes:
    """Plot horizontal bars with their numbers, the first name at the top."""
    names, values = list(counts), list(counts.values())
    figure, axes = new_figure(ON_WHITE, height_px=BARS_HEIGHT_PX)
    axes.barh(range(len(names)), values, height=0.7, color=ON_WHITE.accent)
    total = max(1, sum(values))
    for place, value in enumerate(values):
        axes.annotate(
            f" {value:,} ({value / total:.0%})", (value, place), va="center", fontsize=9, color=ON_WHITE.muted
        )
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=ON_WHITE.ink)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda _, place: names[place]))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, max(values, default=1) * 1.45)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, loc="left", fontsize=11, color=ON_WHITE.ink)
    return to_png(figure, ON_WHITE)


def histogram_png(counts: Mapping[int, int], width: int, title: str, unit: str) -> bytes:
    """Plot how often values occur.

    Args:
        counts: by the first value of a bin; not empty.
        width: of a bin.
        title: of the figure.
        unit: of the values.
    """
    starts, numbers = np.array(sorted(counts.items())).T
    cut = int(np.searchsorted(np.cumsum(numbers), SHOWN_SHARE * numbers.sum()))
    first, last = int(starts[0]) // width, int(starts[cut]) // width
    step = width * max(1, -(-(last - first + 1) // BARS))
    begin = int(starts[0]) // step * step
    edges = np.arange(begin, int(starts[cut]) + step + 1, step)
    beyond = int(starts[-1]) >= edges[-1]
    binned, _ = np.histogram(np.minimum(starts, edges[-1] - 1), bins=edges, weights=numbers)
    figure, axes = new_figure(ON_WHITE)
    axes.bar(edges[:-1], binned, width=step * 0.9, align="edge", color=ON_WHITE.accent)
    axes.set_xlim(begin, edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(f"{unit} (last bar: {edges[-2]:,} and more)" if beyond else unit)
    axes.set_title(title, loc="left", fontsize=11, color=ON_WHITE.ink)
    return to_png(figure, ON_WHITE)


def loss_png(losses: Sequence[float], validation: Sequence[tuple[int, float]], steps_per_loss: int) -> bytes:
    """Plot the loss of a training with its running mean, and the loss on texts that were held out.

    Args:
        losses: in the order of the steps; not empty.
        validation: step and loss.
        steps_per_loss: from one loss to the next.
    """
    figure, axes = new_figure(ON_WHITE, height_px=LOSS_HEIGHT_PX)
    steps, values = np.arange(1, len(losses) + 1) * steps_per_loss, np.array(losses, float)
    window = max(1, round(len(losses) * SMOOTHED_SHARE))
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    shown = slice(None, None, -(-len(losses) // LINE_POINTS))
    axes.plot(steps[shown], values[shown], color=ON_WHITE.soft, linewidth=0.9, label="training")
    middle = steps[window // 2 : window // 2 + len(mean)]
    axes.plot(middle[shown], mean[shown], color=ON_WHITE.accent, linewidth=1.8, label="running mean")
    if validation:
        points: dict[str, Any] = {"color": ON_WHITE.ink, "markersize": 3.5, "clip_on": False, "label": "held-out texts"}
        axes.plot(*zip(*validation, strict=True), "o", **points)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, float(steps[-1]) * 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=9)
    return to_png(figure, ON_WHITE)
