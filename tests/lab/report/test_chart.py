"""Charts: readable without colour, the same each time, and in a page's own colours."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab.measure.ways import WAYS
from lab.report import image
from lab.report.chart import SEGMENTS, TOGETHER, Bars, Lines, Series, Strips
from lab.report.draw import spread_out


def test_nothing_depends_on_colour() -> None:
    """Each way has a marker and dash that no other has, each segment of a bar a hatching of its own."""
    drawn = [way.style for key, way in WAYS.items() if key != "paper"]  # paper is paper-partial on real Xen
    assert len({(style.marker, style.dash) for style in (*drawn, TOGETHER)}) == len(drawn) + 1
    assert len({segment.hatch for segment in SEGMENTS}) == len(SEGMENTS)


def test_names_at_the_end_of_lines_do_not_meet() -> None:
    places = spread_out([0.5 + n / 1000 for n in range(9)], 0.05)
    assert all(b - a > 0.049 for a, b in pairwise(places))
    assert sum(places) / 9 == pytest.approx(0.504)
    for edge in (0.0, 1.0):
        places = spread_out([edge] * 9, 0.05)
        assert all(b - a > 0.049 for a, b in pairwise(places)) and 0 <= places[0] < places[-1] <= 1
    assert spread_out([], 0.1) == [] and spread_out([0.2, 0.9], 0.1) == [0.2, 0.9]


LINES = Lines("x", "x", "x", "y", [Series("a & b", [(0, 0.001), (5, 4000.0)], bars=[(5, 1.0, 5000.0)])], log=True)
BARS = Bars("x", "Time < 7 s", "x", [("row", {"part": 2.0, "more": 1.0})])


@pytest.mark.parametrize("chart", [
    Lines("x", "x", "x", "y", [Series("a", [(0, 0.0)])]),
    LINES,
    BARS,
    Bars("x", "x", "x", [("row", {"part": 0.0})]),
    Strips("x", "x", "x", "y", [Series("a", [(1.0, 0.0)])]),
])  # fmt: skip
def test_charts_of_almost_nothing(chart: Any) -> None:
    drawn = image.inline(chart)
    assert drawn.startswith("<svg") and "nan" not in drawn and "inf" not in drawn


def test_charts_are_the_same_each_time(tmp_path: Path) -> None:
    for kind in ("svg", "png"):
        first, second = (tmp_path / f"{name}.{kind}" for name in ("first", "second"))
        image.write(LINES, first)
        image.write(LINES, second)
        assert first.read_bytes() == second.read_bytes()
        assert b"date" not in first.read_bytes().lower()
    assert image.inline(BARS) == image.inline(BARS)


def test_a_page_gets_its_own_colours_and_tool_tips() -> None:
    lines, bars = image.inline(LINES), image.inline(BARS)
    assert not re.search(r"#[0-9a-f]{6}\b", lines + bars)
    known = set(re.findall(r"(--c\w+):", image.variables(dark=False)))
    assert known == set(re.findall(r"(--c\w+):", image.variables(dark=True)))
    used = set(re.findall(r"var\((--[\w-]+)\)", lines + bars))
    assert used <= known | {"--ink", "--muted", "--line", "--card"} and used & known
    assert "<title>a &amp; b, 5: 4e+03</title>" in lines and "<title>row, more: 1 s</title>" in bars
    assert 'aria-label="Time &lt; 7 s"' in bars
