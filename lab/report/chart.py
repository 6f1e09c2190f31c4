"""The content of a chart, apart from its drawing (draw.py): lines over the RTT, stacked bars, or strips over time.

Nothing depends on colour alone: each way has a marker and a dash of its own, each segment of a bar a hatching, and
both are labelled. The colours are Okabe and Ito's, which people with any colour vision can distinguish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.measure.way import Style

#: The style of a way that is not in the registry.
PLAIN = Style("#555555", "#bbbbbb", (4, 4), "o")
#: The style of the sum of existing and the paper's way for the disk.
TOGETHER = Style("#777777", "#9a9a9a", (2, 3), "D")


@dataclass(frozen=True)
class Segment:
    """The look of a bar's segment: `colour` on a white page, `dark` on a black one, `hatch` is matplotlib's."""

    colour: str
    dark: str
    hatch: str


#: The looks of the first, second, ... segment.
SEGMENTS = (
    Segment("#0072b2", "#5ab4ea", ""),
    Segment("#e69f00", "#f0b840", "//"),
    Segment("#cc79a7", "#e0a3c5", "xx"),
    Segment("#009e73", "#35cba2", "\\\\"),
    Segment("#999999", "#777777", ".."),
    Segment("#d55e00", "#f08a45", "--"),
    Segment("#56b4e9", "#9bd3f5", "||"),
)


@dataclass(frozen=True)
class Series:
    """One line or strip. `bars` are (x, least, most) of the points that are medians of several runs."""

    name: str
    points: Sequence[tuple[float, float]]
    style: Style = PLAIN
    bars: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True)
class Lines:
    """Lines over an axis. `levels`: (y, label) of horizontal lines."""

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]
    levels: Sequence[tuple[float, str]] = ()
    log: bool = False

    @property
    def filled(self) -> bool:
        """Whether there is anything to draw."""
        return any(each.points for each in self.series)

    def table(self) -> list[list[str]]:
        """Return a header and a row for each x."""
        xs = sorted({x for each in self.series for x, _ in each.points})
        known = [dict(each.points) for each in self.series]
        head = [self.x, *(each.name for each in self.series)]
        return [head, *([f"{x:g}", *(_number(one.get(x)) for one in known)] for x in xs)]


@dataclass(frozen=True)
class Bars:
    """Rows of stacked segments. `x` labels the axis, `unit` follows each total; `order`: the names of segments that
    come first."""

    name: str
    title: str
    x: str
    rows: Sequence[tuple[str, dict[str, float]]]
    unit: str = "s"
    order: Sequence[str] = ()

    @property
    def filled(self) -> bool:
        """Whether there is anything to draw."""
        return any(sum(parts.values()) > 0 for _, parts in self.rows)

    @property
    def segments(self) -> list[str]:
        """Return the names of all segments: those of `order`, then the others as they occur."""
        return list(dict.fromkeys([*self.order, *(name for _, parts in self.rows for name in parts)]))

    def table(self) -> list[list[str]]:
        """Return a header and a row for each bar."""
        head = ["", *self.segments, f"all [{self.unit}]"]
        rows = [
            [label, *(_number(parts.get(name)) for name in self.segments), _number(sum(parts.values()))]
            for label, parts in self.rows
        ]
        return [head, *rows]


@dataclass(frozen=True)
class Strips:
    """One small panel for each of `series`, one below the other, with common axes."""

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]

    @property
    def filled(self) -> bool:
        """Whether there is anything to draw."""
        return any(each.points for each in self.series)

    def table(self) -> list[list[str]]:
        """Return a header and a row for each point."""
        rows = [[each.name, f"{x:g}", _number(y)] for each in self.series for x, y in each.points]
        return [["", self.x, self.y], *rows]


Chart = Lines | Bars | Strips


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
