"""Figures of the page of an index: histograms over a logarithmic axis."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter

from pipeline.figures.canvas import PLACEHOLDERS, new_figure, to_svg

TICKS = 6
"""Labels of the axis, at most."""


class LogBin(NamedTuple):
    """One bar."""

    start: float
    end: float
    images: int


def log_histogram(name: str, unit: str, title: str, bins: Sequence[LogBin]) -> str:
    """Plot how many images have values in each bin, over the logarithm of the value.

    Args:
        name: makes the ids of the figure's elements differ from those of others.
        unit: of the values, below the axis.
        title: text for readers who do not see it.
        bins: ascending, not empty.
    """
    starts = np.log2([each.start for each in bins])
    widths = np.log2([each.end for each in bins]) - starts
    figure, axes = new_figure(PLACEHOLDERS)
    axes.bar(starts, [each.images for each in bins], width=widths * 0.9, align="edge", color=PLACEHOLDERS.accent)
    first, last = float(starts[0]), float(starts[-1] + widths[-1])
    axes.set_xlim(first, last)
    step = 0.5 if last - first < TICKS / 2 else np.ceil((last - first) / TICKS)
    axes.xaxis.set_major_locator(FixedLocator(np.arange(np.ceil(first / step) * step, last + 1e-9, step).tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: _label(2**place)))
    axes.set_xlabel(unit)
    return to_svg(figure, name, title)


def _label(value: float) -> str:
    """A value for people: 0.25, 1.41, 512, 2,048, 64 Ki."""
    if value < 100:
        return f"{value:.3g}"
    for unit, prefix in ((2**30, " Gi"), (2**20, " Mi"), (2**10, " Ki")):
        if value >= 16 * 2**10 and value >= unit:
            return f"{value / unit:,.0f}{prefix}"
    return f"{value:,.0f}"
