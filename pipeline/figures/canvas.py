"""How a figure looks, and how it becomes an `<svg>` element of a page or a PNG file beside a card.

In a page, colours are CSS variables (`var(--ink)`), so that a figure follows the light or dark theme, and labels are
text in the page's font. A figure is `WIDTH_PX` wide, so that its labels are readable on a phone. A PNG file has fixed
colours on white, since a hub shows the same file in both themes, and `SCALE` pixels for each px.
"""

import io
import re
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH_PX = 360
HEIGHT_PX = 190
SCALE = 2


class Colours(NamedTuple):
    """Colours of a figure by their use."""

    ink: str
    muted: str
    rule: str
    accent: str
    soft: str


PLACEHOLDERS = Colours("#010101", "#020202", "#030303", "#040404", "#050505")
"""Replaced by the page's CSS variables, for which matplotlib has no syntax."""
VARIABLES = {colour: f"var(--{name})" for name, colour in PLACEHOLDERS._asdict().items()}

ON_WHITE = Colours(ink="#1f2430", muted="#5b6472", rule="#dfe3e8", accent="#2f6fb0", soft="#a9c6e3")


def new_figure(colours: Colours, height_px: int = HEIGHT_PX) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, in the style of all figures."""
    with mpl.rc_context(_style(colours)):
        # 72 points an inch, and SVG's unit is a point: so the numbers above are pixels.
        figure = Figure(figsize=(WIDTH_PX / 72, height_px / 72), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
    axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(short_number))
    return figure, axes


def short_number(value: float, _: object = None) -> str:
    """Return a number as the label of an axis, such as 20k."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Return a figure with the colours `PLACEHOLDERS` as an `<svg>` element.

    Args:
        figure: the figure.
        name: makes the ids of its elements differ from those of other figures of the page.
        title: text for readers who do not see it.
    """
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({**_style(PLACEHOLDERS), "svg.hashsalt": name}):
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
        svg = svg.replace(colour, variable)
    return svg.strip()


def to_png(figure: Figure, colours: Colours) -> bytes:
    """Return a figure as a PNG file; equal figures give equal bytes."""
    out = io.BytesIO()
    with mpl.rc_context(_style(colours)):
        FigureCanvasAgg(figure).print_figure(
            out, format="png", dpi=72 * SCALE, facecolor="white", metadata={"Software": None}
        )
    return out.getvalue()


def _font(match: re.Match[str]) -> str:
    """Use the page's font; the size in the short form `font: 10px 'DejaVu Sans'` is kept."""
    size = re.search(r"[\d.]+px", match[0])
    return f"font-size: {size[0]}; " if size else ""


def _style(colours: Colours) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "font.size": 10,
        "text.color": colours.muted,
        "text.parse_math": False,
        "axes.labelcolor": colours.muted,
        "axes.labelsize": 10,
        "axes.edgecolor": colours.rule,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": colours.rule,
        "grid.linewidth": 0.8,
        "xtick.color": colours.muted,
        "ytick.color": colours.muted,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "ytick.major.size": 0,
        "xtick.major.size": 3,
    }
