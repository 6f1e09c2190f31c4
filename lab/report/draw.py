"""Draw a chart with matplotlib.

The layout is fixed in inches, so that a figure depends on its chart alone. `image` turns figures into files and
into SVG for a page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lab.measure.way import Style
from lab.report.chart import SEGMENTS, Bars, Chart, Lines, Segment, Series, Strips

#: Colours of text, of axes and their labels, of grid lines, of the background.
INK, MUTED, GRID, GROUND = "#16202a", "#5c6873", "#d9dee3", "#ffffff"
_WIDTH = 9.0  # inches
_LETTER = 0.073  # inches: a little more than the mean width of a letter
_BOTTOM = 0.55  # inches, for the labels of the x axis
_TITLE = 0.35
_LABEL_GAP = 0.18  # inches between the labels of two lines
_ROW, _STRIP = 0.42, 0.55


@dataclass(frozen=True)
class Drawing:
    """A figure, and the tool tips of its elements by their id in SVG."""

    figure: Figure
    tips: dict[str, str] = field(default_factory=dict)

    def tip(self, text: str) -> str:
        """Return a new id for an element with the tool tip `text`."""
        name = f"tip{len(self.tips)}"
        self.tips[name] = text
        return name

    def axes(self, left: float, right: float, top: float, bottom: float) -> Any:
        """Return axes with these margins in inches."""
        width, height = self.figure.get_size_inches()
        box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
        made = self.figure.add_axes(box)
        made.spines[:].set_visible(False)
        made.tick_params(length=0, colors=MUTED)
        made.set_axisbelow(True)
        return made


def draw(chart: Chart, titled: bool) -> Drawing:
    """Draw `chart`, with its title above it if `titled`."""
    extra = _TITLE if titled else 0.0
    if isinstance(chart, Lines):
        drawing = _lines(chart, extra)
    else:
        drawing = _bars(chart, extra) if isinstance(chart, Bars) else _strips(chart, extra)
    if titled:
        height = drawing.figure.get_size_inches()[1]
        drawing.figure.text(0.01, 1 - 0.12 / height, chart.title, va="top", color=INK, fontsize=11)
    return drawing


def _new(height: float) -> Drawing:
    return Drawing(Figure(figsize=(_WIDTH, height), facecolor=GROUND))


def _round_up(most: float, count: int) -> list[float]:
    """Return about `count` round numbers from 0 to `most` or more."""
    return [float(tick) for tick in MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(0, most or 1)]


# -- lines -----------------------------------------------------------------------------------------


def _lines(chart: Lines, extra: float) -> Drawing:
    drawing, height = _new(4.4 + extra), 4.4 - 0.2 - _BOTTOM
    names = [each.name for each in chart.series] + [label for _, label in chart.levels]
    axes = drawing.axes(0.65, _LETTER * max(map(len, names)) + 0.5, 0.2 + extra, _BOTTOM)
    xs = sorted({x for each in chart.series for x, _ in each.points})
    axes.set_xticks(xs if len(xs) <= 14 else _round_up(xs[-1], 8))
    axes.set_xlim(xs[0], xs[-1] if len(xs) > 1 else xs[0] + 1)
    axes.xaxis.set_major_formatter("{x:g}")
    _scale_y(axes, chart)
    axes.set_xlabel(chart.x, color=MUTED)
    axes.set_ylabel(chart.y, color=MUTED)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    for y, _ in chart.levels:
        axes.axhline(y, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    for each in chart.series:
        _line(drawing, axes, each)
    _label(axes, chart, height)
    return drawing


def _scale_y(axes: Any, chart: Lines) -> None:
    values = [y for each in chart.series for _, y in each.points] + [y for y, _ in chart.levels]
    values += [most for each in chart.series for _, _, most in each.bars]
    positive = [value for value in values if value > 0]
    if chart.log and positive:
        first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(10.0**first, 10.0 ** max(last, first + 1))
        axes.minorticks_off()
    else:
        ticks = _round_up(max(values), 6)
        axes.set_yticks(ticks)
        axes.set_ylim(0, ticks[-1])
    axes.yaxis.set_major_formatter("{x:g}")


def _line(drawing: Drawing, axes: Any, series: Series) -> None:
    style = series.style
    dash = (0, style.dash) if style.dash else "solid"
    xs, ys = [x for x, _ in series.points], [y for _, y in series.points]
    axes.plot(xs, ys, color=style.colour, linestyle=dash, linewidth=style.width * 0.75, clip_on=False)
    for x, least, most in series.bars:
        axes.plot([x, x], [least, most], color=style.colour, linewidth=0.9, clip_on=False)
    for x, y in series.points:
        tip = drawing.tip(f"{series.name}, {x:g}: {y:.3g}")
        axes.plot([x], [y], color=style.colour, marker=style.marker, markersize=6, clip_on=False, gid=tip)


def _label(axes: Any, chart: Lines, height: float) -> None:
    """Write the name of each line and level to the right of its end, moved apart where they would overlap."""
    marks: list[tuple[float, str, Style | None]] = [(_up(axes, y), label, None) for y, label in chart.levels]
    marks += [(_up(axes, each.points[-1][1]), each.name, each.style) for each in chart.series if each.points]
    marks.sort(key=lambda mark: mark[0])
    wide = _WIDTH * axes.get_position().width
    across, at, text = axes.transAxes, 1 + 0.28 / wide, 1 + 0.38 / wide
    places = spread_out([end for end, _, _ in marks], _LABEL_GAP / height)
    for (end, name, style), place in zip(marks, places, strict=True):
        leader = ([1 + 0.08 / wide, 1 + 0.2 / wide], [end, place])
        axes.plot(*leader, color=MUTED, linewidth=0.6, transform=across, clip_on=False)
        weight, colour = ("bold", INK) if style else ("normal", MUTED)
        axes.text(text if style else at, place, name, va="center", color=colour, weight=weight, transform=across)
        if style:
            look = {"color": style.colour, "marker": style.marker, "markersize": 5}
            axes.plot([at], [place], transform=across, clip_on=False, **look)


def _up(axes: Any, y: float) -> float:
    """Return the height of `y` as a share of the axes."""
    _, pixels = axes.transData.transform((axes.get_xlim()[0], max(y, axes.get_ylim()[0])))
    return float(axes.transAxes.inverted().transform((0, pixels))[1])


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Return ascending `places` moved apart to at least `gap`, and into the range of 0 to 1 if they fit."""
    found = list(places)
    for _ in range(200):
        for number in range(len(found) - 1):
            if (lacking := gap - (found[number + 1] - found[number])) > 0:
                found[number] -= lacking / 2
                found[number + 1] += lacking / 2
        if found and found[-1] - found[0] <= 1:
            shift = max(0.0, -found[0]) - max(0.0, found[-1] - 1)
            found = [place + shift for place in found]
    return found


# -- bars ------------------------------------------------------------------------------------------


def _bars(chart: Bars, extra: float) -> Drawing:
    used = {name for _, parts in chart.rows for name, value in parts.items() if value}
    looks = {name: SEGMENTS[number % len(SEGMENTS)] for number, name in enumerate(chart.segments)}
    several = len(chart.segments) > 1
    top = (0.4 if several else 0.1) + extra
    drawing = _new(top + _ROW * len(chart.rows) + _BOTTOM)
    axes = drawing.axes(_LETTER * max(len(name) for name, _ in chart.rows) + 0.25, 0.95, top, _BOTTOM)
    ticks = _round_up(max(sum(parts.values()) for _, parts in chart.rows), 5)
    axes.set_xticks(ticks)
    axes.set_xlim(0, ticks[-1])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(chart.x, color=MUTED)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_yticks(range(len(chart.rows)), [name for name, _ in chart.rows])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(chart.rows) - 0.5, -0.5)
    for row, (name, parts) in enumerate(chart.rows):
        left = 0.0
        for segment, look in looks.items():
            if value := parts.get(segment, 0.0):
                tip = drawing.tip(f"{name}, {segment}: {value:.3g} {chart.unit}")
                axes.barh(row, value, left=left, height=0.6, gid=tip, **_fill(look))
                left += value
        axes.annotate(
            f"{_short(left)} {chart.unit}", (left, row), (5, 0), textcoords="offset points", va="center",
            color=INK, fontweight="bold",
        )  # fmt: skip
    if several:
        handles = [Patch(label=name, **_fill(look)) for name, look in looks.items() if name in used]
        above = 1 + 0.05 / (_ROW * len(chart.rows))
        axes.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, above), ncols=len(handles), frameon=False,
            borderaxespad=0, handlelength=1.2, handleheight=1.1, columnspacing=1.4, labelcolor=MUTED,
        )  # fmt: skip
    return drawing


def _fill(look: Segment) -> dict[str, Any]:
    return {"facecolor": look.colour, "hatch": look.hatch, "edgecolor": GROUND, "linewidth": 0.6}


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# -- strips ----------------------------------------------------------------------------------------


def _strips(chart: Strips, extra: float) -> Drawing:
    count, top = len(chart.series), 0.15 + extra
    drawing = _new(top + _STRIP * count + _BOTTOM)
    left = _LETTER * max(len(each.name) for each in chart.series) + 0.25
    last = _round_up(max((x for each in chart.series for x, _ in each.points), default=1.0), 6)
    most = _round_up(max((y for each in chart.series for _, y in each.points), default=1.0), 3)[-1]
    for number, each in enumerate(chart.series):
        below = count - 1 - number
        axes = drawing.axes(left, 0.55, top + _STRIP * number, _BOTTOM + _STRIP * below)
        axes.set_xlim(0, last[-1])
        axes.set_ylim(0, most * 1.2)
        axes.set_xticks(last)
        axes.set_yticks([])
        axes.grid(axis="x", color=GRID, linewidth=0.7)
        axes.axhline(0, color=GRID, linewidth=1.4)
        _fill_steps(axes, each)
        axes.annotate(
            each.name, (0, most * 0.45), (-6, 0), textcoords="offset points", ha="right", va="center", color=INK
        )
        axes.annotate(
            f"{most:g}", (1, most), (5, 0), ("axes fraction", "data"), "offset points", va="center", color=MUTED
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="x", labelbottom=not below)
        if not below:
            axes.set_xlabel(f"{chart.x}; height: {chart.y}", color=MUTED)
    return drawing


def _fill_steps(axes: Any, series: Series) -> None:
    """Draw each point's value from the x of the point before it."""
    edges, values = [0.0, *(x for x, _ in series.points)], [y for _, y in series.points]
    colour = series.style.colour
    axes.stairs(values, edges, fill=True, facecolor=to_rgba(colour, 0.3), edgecolor=colour, linewidth=0.8)
