"""Charts as SVG to stand inside a page: text that can be selected, colours that the page chooses, the same every time.

Series differ by marks and lines too, never by colour alone. Drawn 360 units wide, so that text is of normal size on a
phone.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape

from tpo.records import Record

INK, LINE = "#010203", "#010204"
BLUE, ORANGE = "#1f5fa8", "#b35900"
# What the page's style says in the place of a colour here: light and dark differ.
_VARIABLES = {INK: "currentColor", LINE: "var(--line)", BLUE: "var(--blue)", ORANGE: "var(--orange)"}
_WIDTH_IN = 5  # at 72 units an inch
_MOST_POINTS = 150
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with two dollar signs is a name
    "font.family": "sans-serif",
    "font.size": 12,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.color": INK,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.markersize": 5,
    "path.simplify": True,
}


class Line(Record):
    """One series of a chart."""

    name: str
    color: str
    style: str = "-"
    mark: str = ""
    x: tuple[float, ...]
    y: tuple[float, ...]


class Span(Record):
    """A value between two ends."""

    label: str
    value: float
    low: float
    high: float


class Cell(Record):
    """A place of a map and what is written there."""

    column: str
    row: str
    value: float
    text: str


@contextmanager
def _drawing(title: str, height_in: float, parts: list[Markup]) -> Iterator[Any]:
    """Axes to draw on; what was drawn is put into `parts`."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = _STYLE | {"svg.hashsalt": title}  # matplotlib types the names of all its settings
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        yield axes
        written = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing)
    parts.append(_inline(written.getvalue().decode(), title))


def _inline(svg: str, title: str) -> Markup:
    """A file of matplotlib's as a part of a page: no prolog, no names that are there twice, a title for readers."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)  # the style would be the whole page's
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, variable)
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    body = re.sub(r"(\d+\.\d\d)\d+(?=[^<>]*>)", r"\1", body)  # of places, not of what is written there
    body = re.sub(r"\n\s*", "\n", body)
    view = re.search(r'viewBox="[^"]*"', body)
    assert view, "matplotlib writes a viewBox"
    inside = body[body.index(">") + 1 :]
    return Markup('<svg role="img" {}><title>{}</title>{}').format(Markup(view[0]), escape(title), Markup(inside))  # noqa: S704


def bars(title: str, labels: Sequence[str], series: Mapping[str, Sequence[int]], unit: str) -> Markup:
    """Counts as lying bars, one series on the other; the sum stands at the end."""
    drawn: list[Markup] = []
    with _drawing(title, 0.75 + 0.3 * len(labels) + (0.25 if len(series) > 1 else 0), drawn) as axes:
        ends = [0] * len(labels)
        looks = ((BLUE, ""), (ORANGE, "////"), (LINE, "...."))
        for (name, counts), (color, hatch) in zip(series.items(), looks, strict=False):
            axes.barh(labels, counts, left=ends, color=color, hatch=hatch, label=name, height=0.7)
            ends = [end + count for end, count in zip(ends, counts, strict=True)]
        for row, end in enumerate(ends):
            axes.annotate(f"{end:,}", (end, row), xytext=(4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * max(*ends, 1))
        axes.locator_params(axis="x", integer=True, nbins=5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit)
        if len(series) > 1:
            axes.figure.legend(loc="outside upper left", ncols=len(series))
    return drawn[0]


def histogram(title: str, values: Mapping[str, Sequence[float]], unit: str, counted: str) -> Markup:
    """How values are spread; of two series, one is filled and one a dashed outline, over the same bins."""
    import numpy as np

    drawn: list[Markup] = []
    everything = np.concatenate([np.asarray(series, dtype=float) for series in values.values()])
    whole = bool(np.all(everything == np.round(everything))) and np.ptp(everything) <= 30
    if whole:  # a bin for each number
        edges: Any = np.arange(everything.min() - 0.5, everything.max() + 1)
    else:
        edges = np.histogram_bin_edges(everything, bins=min(20, max(5, round(len(everything) ** 0.5))))
    with _drawing(title, 2.4, drawn) as axes:
        looks: tuple[dict[str, Any], ...] = (
            {"histtype": "stepfilled", "color": BLUE, "alpha": 0.75},
            {"histtype": "step", "color": ORANGE, "linestyle": "--", "linewidth": 2},
        )
        for (name, series), look in zip(values.items(), looks, strict=False):
            axes.hist(series, bins=edges, label=name, **look)
        axes.locator_params(integer=whole, axis="x")
        axes.locator_params(integer=True, axis="y", nbins=5)
        axes.set_xlabel(unit)
        axes.set_ylabel(counted)
        if len(values) > 1:
            axes.figure.legend(loc="outside upper left", ncols=2)
    return drawn[0]


def curves(title: str, lines: Sequence[Line], x_label: str, y_label: str) -> Markup:
    """Lines over steps. A long one is drawn as the means of neighbouring points."""
    drawn: list[Markup] = []
    with _drawing(title, 2.6, drawn) as axes:
        for line in lines:
            x, y = _thinned(line.x), _thinned(line.y)
            mark = line.mark if len(x) <= 20 else ""  # where there are many, the line's style tells
            axes.plot(x, y, color=line.color, linestyle=line.style, marker=mark, label=line.name)
        axes.locator_params(axis="x", integer=True, nbins=6)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.figure.legend(loc="outside upper left", ncols=2)
    return drawn[0]


def drawn_as_one(points: int) -> int:
    """How many neighbouring points of so many make one of a curve."""
    return max(1, -(-points // _MOST_POINTS))


def _thinned(values: Sequence[float]) -> list[float]:
    size = drawn_as_one(len(values))
    parts = [values[i : i + size] for i in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]


def spans(title: str, series: Mapping[str, Sequence[Span]], unit: str) -> Markup:
    """Values with their intervals, a row for each label and a mark of its own for each series."""
    drawn: list[Markup] = []
    labels = list(dict.fromkeys(span.label for found in series.values() for span in found))
    looks = ((ORANGE, "s", "none"), (BLUE, "o", BLUE), (INK, "D", "none"))
    with _drawing(title, 0.9 + 0.42 * len(labels), drawn) as axes:
        for number, ((name, found), (color, mark, fill)) in enumerate(zip(series.items(), looks, strict=False)):
            rows = [labels.index(span.label) + 0.22 * (number - (len(series) - 1) / 2) for span in found]
            reach = [[s.value - s.low for s in found], [s.high - s.value for s in found]]
            axes.errorbar(
                [span.value for span in found], rows, xerr=[[max(0.0, end) for end in ends] for ends in reach],
                fmt=mark, color=color, markerfacecolor=fill, capsize=3, label=name,
            )  # fmt: skip
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(unit)
        axes.figure.legend(loc="outside upper left", ncols=len(series))
    return drawn[0]


def heat_map(
    title: str, cells: Sequence[Cell], x_label: str, y_label: str, colors: str, ends: tuple[float, float]
) -> Markup:
    """Numbers in coloured fields. The numbers say all; colours only help to find the odd ones."""
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    drawn: list[Markup] = []
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = list(dict.fromkeys(cell.row for cell in cells))
    shade = mpl.colormaps[colors]
    with _drawing(title, 0.75 + 0.36 * len(rows), drawn) as axes:
        for cell in cells:
            red, green, blue, _ = color = shade((cell.value - ends[0]) / (ends[1] - ends[0]))
            x, y = columns.index(cell.column), rows.index(cell.row)
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=color, linewidth=0))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            axes.text(x, y, cell.text, ha="center", va="center", color="white" if dark else "black")
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    return drawn[0]
