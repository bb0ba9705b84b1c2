"""Figures of the report page: throughput, words of captions, and words against requested words."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.figures.canvas import PLACEHOLDERS, new_figure, to_svg

TIME_BINS = 60
"""At most; with few commits half as many as commits, so that there are no gaps between the bars."""


class WordCounts(NamedTuple):
    """The words of the captions of one mode for one requested number of words: percentiles."""

    requested: int
    p10: int
    p50: int
    p90: int


def throughput_plot(times_s: Sequence[float], rows: Sequence[int]) -> str:
    """Plot caption rows committed per second over time; `times_s` since the epoch, UTC on the axis."""
    first, last = min(times_s), max(times_s)
    span = max(last - first, 1.0)
    num_bins = min(TIME_BINS, max(5, len(times_s) // 2))
    width = span / num_bins
    edges = np.linspace(first, first + span, num_bins + 1)
    binned, _ = np.histogram(times_s, bins=edges, weights=rows)
    figure, axes = new_figure(PLACEHOLDERS)
    axes.bar(edges[:-1], binned / width, width=width * 0.85, align="edge", color=PLACEHOLDERS.accent)
    axes.set_ylim(0, float(binned.max()) / width * 1.08)
    axes.set_xlim(first, first + span)
    axes.set_ylabel("captions/s")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    form = "%d %b %H:%M" if span > 86_400 else "%H:%M" if span > 600 else "%H:%M:%S"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: datetime.fromtimestamp(value, UTC).strftime(form)))
    return to_svg(figure, "throughput", "Captions committed per second over time")


def words_plot(mode: str, words: Mapping[int, int]) -> str:
    """Plot how many captions have how many words."""
    counts = np.array(sorted(words.items()))
    highest = int(counts[:, 0].max())
    step = max(1, -(-(highest + 1) // 40))
    edges = np.arange(0, highest + step + 1, step)
    binned, _ = np.histogram(counts[:, 0], bins=edges, weights=counts[:, 1])
    figure, axes = new_figure(PLACEHOLDERS)
    axes.bar(edges[:-1], binned, width=step * 0.9, align="edge", color=PLACEHOLDERS.accent)
    axes.set_xlim(0, highest + step)
    axes.set_xlabel("words")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return to_svg(figure, f"words {mode}", f"Captions of mode {mode} by number of words")


def length_plot(mode: str, lengths: Sequence[WordCounts], tolerance: float) -> str:
    """Plot actual against requested words: median, 10th to 90th percentile, and the allowed range."""
    requested = np.array([length.requested for length in lengths], float)
    middle = np.array([length.p50 for length in lengths], float)
    spread = np.array([[length.p50 - length.p10, length.p90 - length.p50] for length in lengths], float).T
    figure, axes = new_figure(PLACEHOLDERS)
    line = np.array([0.0, requested.max() * 1.08])
    axes.fill_between(line, line * (1 - tolerance), line * (1 + tolerance), color=PLACEHOLDERS.soft, linewidth=0)
    axes.plot(line, line, color=PLACEHOLDERS.muted, linewidth=0.8)
    axes.errorbar(requested, middle, yerr=spread, fmt="o", color=PLACEHOLDERS.accent, markersize=4.5, elinewidth=1.5)
    axes.set_xlim(0, line[1])
    axes.set_ylim(0, max(line[1], max(length.p90 for length in lengths)) * 1.05)
    axes.set_xlabel("requested words")
    axes.set_ylabel("words")
    return to_svg(figure, f"length {mode}", f"Words against requested words, mode {mode}")
