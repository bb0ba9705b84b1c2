"""Figures as SVG inside a page: the only module that imports matplotlib.

Colours are CSS variables of the page (`var(--ink)`), so that a figure follows the light or dark theme. Labels are text
in the page's font. A figure is `WIDTH_PX` wide, so that its labels are readable on a phone.
"""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH_PX = 360
HEIGHT_PX = 190
TIME_BINS = 60
"""At most; with few commits half as many as commits, so that there are no gaps between the bars."""

# Placeholders for the page's colours: matplotlib has no syntax for CSS variables.
INK, MUTED, RULE, ACCENT, SOFT = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent", SOFT: "--soft"}

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": MUTED,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
}


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
    figure, axes = _figure()
    axes.bar(edges[:-1], binned / width, width=width * 0.85, align="edge", color=ACCENT)
    axes.set_ylim(0, float(binned.max()) / width * 1.08)
    axes.set_xlim(first, first + span)
    axes.set_ylabel("captions/s")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    form = "%d %b %H:%M" if span > 86_400 else "%H:%M" if span > 600 else "%H:%M:%S"
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: datetime.fromtimestamp(value, UTC).strftime(form)))
    return _svg(figure, "throughput", "Captions committed per second over time")


def words_plot(mode: str, words: Mapping[int, int]) -> str:
    """Plot how many captions have how many words."""
    counts = np.array(sorted(words.items()))
    highest = int(counts[:, 0].max())
    step = max(1, -(-(highest + 1) // 40))
    edges = np.arange(0, highest + step + 1, step)
    binned, _ = np.histogram(counts[:, 0], bins=edges, weights=counts[:, 1])
    figure, axes = _figure()
    axes.bar(edges[:-1], binned, width=step * 0.9, align="edge", color=ACCENT)
    axes.set_xlim(0, highest + step)
    axes.set_xlabel("words")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return _svg(figure, f"words {mode}", f"Captions of mode {mode} by number of words")


def length_plot(mode: str, lengths: Sequence[WordCounts], tolerance: float) -> str:
    """Plot actual against requested words: median, 10th to 90th percentile, and the allowed range."""
    requested = np.array([length.requested for length in lengths], float)
    middle = np.array([length.p50 for length in lengths], float)
    spread = np.array([[length.p50 - length.p10, length.p90 - length.p50] for length in lengths], float).T
    figure, axes = _figure()
    line = np.array([0.0, requested.max() * 1.08])
    axes.fill_between(line, line * (1 - tolerance), line * (1 + tolerance), color=SOFT, linewidth=0)
    axes.plot(line, line, color=MUTED, linewidth=0.8)
    axes.errorbar(requested, middle, yerr=spread, fmt="o", color=ACCENT, markersize=4.5, elinewidth=1.5)
    axes.set_xlim(0, line[1])
    axes.set_ylim(0, max(line[1], max(length.p90 for length in lengths)) * 1.05)
    axes.set_xlabel("requested words")
    axes.set_ylabel("words")
    return _svg(figure, f"length {mode}", f"Words against requested words, mode {mode}")


def _figure() -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        # 72 points an inch, and SVG's unit is a point: so the numbers above are pixels.
        figure = Figure(figsize=(WIDTH_PX / 72, HEIGHT_PX / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
    axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    return figure, axes


def _short(value: float, _: object) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def _svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` element; `name` makes its ids differ from those of other figures."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={**nothing, "Title": title})
    text = out.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</defs>|<metadata>.*?</metadata>", "", svg, count=2, flags=re.DOTALL)
    svg = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|[A-Za-z]+Collection)_\d+"', "", svg
    )
    svg = re.sub(r"font(-family)?: [^;\"]*;? ?", _font, svg)
    svg = re.sub(r'^<svg([^>]*?) width="[^"]*" height="[^"]*"', r'<svg\1 role="img"', svg, count=1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()


def _font(match: re.Match[str]) -> str:
    """Use the page's font; the size in the short form `font: 10px 'DejaVu Sans'` is kept."""
    size = re.search(r"[\d.]+px", match[0])
    return f"font-size: {size[0]}; " if size else ""
