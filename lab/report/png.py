"""Charts as PNG, by matplotlib, for where a page's SVG cannot go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.report.chart import SEGMENTS, Bars, Chart, Lines, Strips


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
    except ImportError:
        return False
    return True


def write(chart: Chart, path: Path) -> None:
    """Write `chart` to `path`."""
    from matplotlib import pyplot

    if isinstance(chart, Strips):
        _strips(chart, path)
        return
    rows = len(chart.rows) if isinstance(chart, Bars) else 0
    figure, axes = pyplot.subplots(figsize=(9, 1.4 + 0.45 * rows if rows else 4.8), layout="constrained")
    axes.set_title(chart.title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if isinstance(chart, Lines):
        _lines(axes, chart)
    else:
        _bars(axes, chart)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _lines(axes: Any, chart: Lines) -> None:
    for each in chart.series:
        style = each.style
        dash = (0, [float(word) / style.width for word in style.dash.split()]) if style.dash else "solid"
        xs, ys = [x for x, _ in each.points], [y for _, y in each.points]
        pen = {"color": style.colour, "linestyle": dash, "marker": style.marker, "linewidth": style.width}
        axes.plot(xs, ys, label=each.name, **pen)
        for x, least, most in each.bars:
            axes.plot([x, x], [least, most], color=style.colour, linewidth=1)
    for y, words in chart.levels:
        axes.axhline(y, color="#888888", linewidth=1, linestyle=(0, (2, 2)))
        axes.annotate(words, (1, y), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    if chart.log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def _strips(chart: Strips, path: Path) -> None:
    from matplotlib import pyplot

    count = len(chart.series)
    figure, panels = pyplot.subplots(
        count, 1, figsize=(9, 1 + 0.75 * count), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axes, each in zip(panels[:, 0], chart.series, strict=True):
        xs, ys = [x for x, _ in each.points], [y for _, y in each.points]
        axes.fill_between(xs, ys, step="pre", color=each.style.colour, alpha=0.35)
        axes.set_ylabel(each.name, rotation=0, ha="right", va="center", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_title(chart.title, loc="left", fontsize=11)
    panels[-1, 0].set_xlabel(f"{chart.x}; height: {chart.y}")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(axes: Any, chart: Bars) -> None:
    names = [name for name, _ in chart.rows]
    left = [0.0] * len(names)
    for number, segment in enumerate(chart.segments):
        colour, _, hatch = SEGMENTS[number % len(SEGMENTS)]
        wide = [parts.get(segment, 0.0) for _, parts in chart.rows]
        axes.barh(names, wide, left=left, height=0.62, color=colour, hatch=hatch, edgecolor="white", label=segment)
        left = [before + more for before, more in zip(left, wide, strict=True)]
    for row, value in enumerate(left):
        axes.annotate(f" {value:.3g} {chart.unit}", (value, row), va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(chart.x)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.margins(x=0.12)
    axes.tick_params(axis="y", length=0)
    if len(chart.segments) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.22), ncols=6, frameon=False, fontsize=9)
