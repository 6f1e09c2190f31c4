"""What a figure shows, apart from how it is drawn: lines over the RTT, or stacked bars. And how each way looks.

Nothing hangs on colour: every way has a marker and a dash of its own, every segment a hatching, and both are named
where they are. The colours are Okabe and Ito's, which all kinds of eyes tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Style:
    """`colour` on white, `dark` on black; `dash` in SVG's words; `marker` in matplotlib's."""

    colour: str
    dark: str
    dash: str
    marker: str
    width: float = 1.8


STYLES: dict[str, Style] = {
    "existing": Style("#333333", "#d6d6d6", "", "s", 2.2),
    "existing-gcm": Style("#777777", "#9a9a9a", "8 3", "D"),
    "plain": Style("#a06a00", "#e69f00", "2 3", "x"),
    "paper-full": Style("#b5560b", "#e9925a", "9 3 2 3", "^"),
    "paper-partial": Style("#b34d8f", "#d995bd", "6 3", "v"),
    "paper": Style("#b34d8f", "#d995bd", "6 3", "v"),
    "existing+partial": Style("#777777", "#9a9a9a", "2 3", "D"),
    "rsync": Style("#8a6d00", "#d9c34a", "3 3", "P"),
    "zstd": Style("#6b6b00", "#c8c83c", "10 4", "X"),
    "full": Style("#2a7fb0", "#6cbbea", "9 3 2 3", "<"),
    "static": Style("#00795a", "#2fc79a", "", "o", 2.8),
    "live": Style("#0b4f9e", "#7aa9f0", "5 2", "*", 2.4),
}
PLAIN = Style("#555555", "#bbbbbb", "4 4", "o")
#: Of segments: colour, colour on black, hatching (matplotlib's).
SEGMENTS = (
    ("#0072b2", "#5ab4ea", ""),
    ("#e69f00", "#f0b840", "//"),
    ("#cc79a7", "#e0a3c5", "xx"),
    ("#009e73", "#35cba2", "\\\\"),
    ("#999999", "#777777", ".."),
    ("#d55e00", "#f08a45", "--"),
    ("#56b4e9", "#9bd3f5", "||"),
)


@dataclass(frozen=True)
class Series:
    """`key` names its style; `bars` are (x, least, most) where there were several runs."""

    key: str
    name: str
    points: Sequence[tuple[float, float]]
    bars: Sequence[tuple[float, float, float]] = ()

    @property
    def style(self) -> Style:
        return STYLES.get(self.key, PLAIN)


@dataclass(frozen=True)
class Lines:
    """Lines over an axis. `levels`: (y, what it stands for), drawn across."""

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]
    levels: Sequence[tuple[float, str]] = ()
    log: bool = False

    def table(self) -> list[list[str]]:
        """For CSV: a row for each x."""
        xs = sorted({x for each in self.series for x, _ in each.points})
        known = [dict(each.points) for each in self.series]
        head = [self.x, *(each.name for each in self.series)]
        return [head, *([f"{x:g}", *(_number(one.get(x)) for one in known)] for x in xs)]


@dataclass(frozen=True)
class Bars:
    """Rows of segments, in the unit that `x` names."""

    name: str
    title: str
    x: str
    rows: Sequence[tuple[str, dict[str, float]]]
    unit: str = "s"
    order: list[str] = field(default_factory=list)

    @property
    def segments(self) -> list[str]:
        """Their names, in the order in which they first come."""
        return list(dict.fromkeys([*self.order, *(name for _, parts in self.rows for name in parts)]))

    def table(self) -> list[list[str]]:
        """For CSV: a row for each bar."""
        head = ["", *self.segments, f"all [{self.unit}]"]
        rows = [
            [label, *(_number(parts.get(name)) for name in self.segments), _number(sum(parts.values()))]
            for label, parts in self.rows
        ]
        return [head, *rows]


@dataclass(frozen=True)
class Strips:
    """One small panel for each of `series`, one below the other, on the same axes."""

    name: str
    title: str
    x: str
    y: str
    series: Sequence[Series]

    def table(self) -> list[list[str]]:
        """For CSV: a row for each point."""
        rows = [[each.name, f"{x:g}", _number(y)] for each in self.series for x, y in each.points]
        return [["", self.x, self.y], *rows]


Chart = Lines | Bars | Strips


def ticks(most: float, count: int = 6) -> list[float]:
    """Round numbers from 0 to at least `most`, about `count` of them."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * 0.999)
    return [round(step * number, 10) for number in range(math.ceil(most / step - 1e-9) + 1)]


def decades(least: float, most: float) -> list[float]:
    """Powers of ten around both."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
