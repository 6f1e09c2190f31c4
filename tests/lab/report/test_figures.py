"""The report: what is made of results, and that the page holds it and asks nobody."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError
from lab.measure.ways import WAYS
from lab.report import data, image, page
from lab.report.chart import SEGMENTS, TOGETHER, Bars, Lines, Series, Strips
from lab.report.draw import spread_out
from lab.report.figures import sections
from tests.helpers.results import matrix, save, save_xen

DOCS = Path(__file__).parents[3] / "docs" / "results"
COMMITTED = ("ipsec", "move", "paper-netns", "quick", "recorded-busy", "recorded-idle", "xeon")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return matrix(tmp_path / "results")


def test_the_papers_figures_are_there(folder: Path) -> None:
    (section,) = sections(data.load([folder])[0])
    assert {figure.number for figure in section.figures} >= {6, 7, 9}
    seven = next(figure.chart for figure in section.figures if figure.number == 7)
    assert isinstance(seven, Bars) and seven.rows[0][1] == {"compress": 20.0, "decompress": 10.0}  # no scp
    nine = next(figure.chart for figure in section.figures if figure.number == 9)
    assert isinstance(nine, Lines) and 0.7 in [level for level, _ in nine.levels]
    six = next(figure.chart for figure in section.figures if figure.number == 6)
    assert isinstance(six, Lines)
    together = next(each for each in six.series if each.name == "existing + partial")
    assert together.points[0] == (0.0, pytest.approx(300.0))


def chart(runs: data.Set, name: str) -> Any:
    """The first figure of that name, and what is said of it."""
    found = [each for section in sections(runs) for each in section.figures]
    return next(each for each in found if each.chart.name.startswith(name))


def test_bars_of_where_the_time_goes_are_the_times_of_figure_6(tmp_path: Path) -> None:
    here = tmp_path / "xen"
    for seconds in (95.0, 97.0):
        save_xen(here, "existing", 0.12, seconds=seconds, disk_seconds=26.0)
        phases = {"connect": 10.0, "memory": seconds - 25, "stopped": 4.0}
        save_xen(here, "live", 0.12, seconds=seconds, result={"phases": phases})
    save_xen(here, "paper", 0.12, seconds=43.0, steps={"gzip": 20.0, "scp": 10.0, "gunzip": 13.0})
    (runs,) = data.load([here])
    rows = dict(chart(runs, "phases").chart.rows)
    assert rows["existing (IPsec)"] == {"memory": 96.0}  # the copy of its disk before is not counted
    assert rows["xenplugin live"]["start"] == pytest.approx(11) and sum(rows["xenplugin live"].values()) == 96
    ((_, steps),) = chart(runs, "paper").chart.rows
    assert steps == {"compress": 20.0, "scp": 10.0, "decompress": 13.0}
    ((_, fixed),) = chart(runs, "figure-7").chart.rows
    assert fixed == {"compress": 20.0, "decompress": 13.0}  # as its words call them


@pytest.mark.parametrize("name", COMMITTED)
def test_so_they_are_of_what_was_measured(name: str) -> None:
    for runs, cell in ((each, cell) for each in data.load([DOCS / name]) for cell in each.runs):
        parts = runs.phases(cell.way, cell.rtt, cell.rate, cell.data)
        assert sum(parts.values()) == pytest.approx(runs.median(*vars(cell).values()), abs=0.05), cell


def test_ipsec_in_user_space_is_told_where_it_shows(folder: Path, tmp_path: Path) -> None:
    def told(runs: data.Set) -> list[bool]:
        claimed = page.html([runs], "x").partition('<section id="claims"')[2]
        return ["user space" in claimed, *(any("user space" in note for note in s.notes) for s in sections(runs))]

    assert told(data.load([folder])[0]) == [False, False]
    for way in ("existing", "static"):
        save(folder, way, 0.12, 30.0, rate=None)
    assert told(data.load([folder])[0]) == [True, False, True]
    save_xen(tmp_path / "xen", "existing", 0.12, None, seconds=95.0, disk_seconds=26.0)
    assert told(data.load([tmp_path / "xen"])[0]) == [False, False]  # the kernel's there


def test_heads_say_what_was_measured(folder: Path) -> None:
    (section,) = sections(data.load([folder])[0])
    assert section.title == "100 Mbit/s, 1 GB of files (1.12 GB with the file system's own)"
    assert section.notes == ["24 runs, 1 to 3 of each way at each round-trip time."]


def test_bytes_at_the_router_are_not_the_same_everywhere(folder: Path, tmp_path: Path) -> None:
    save_xen(tmp_path / "xen", "existing", 0.0, seconds=95.0, disk_seconds=26.0)
    native, xen = data.load([folder, tmp_path / "xen"])
    assert "Ethernet" in chart(xen, "router").words and "Ethernet" not in chart(native, "router").words


class Reader(HTMLParser):
    """Balanced elements, and what they refer to."""

    EMPTY = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.add(value or "")
            if key in ("src", "href"):
                self.urls.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_nobody(folder: Path, tmp_path: Path) -> None:
    written = page.write(tmp_path / "report", data.load([folder]), "A <title> & more")
    text = written[0].read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert all(url.startswith("#") and url[1:] in reader.ids for url in reader.urls)
    assert "url(http" not in text and "<script" not in text and "A &lt;title&gt; &amp; more" in text
    fills = set(re.findall(r"url\(#([\w-]+)\)", text))
    assert fills and fills <= reader.ids
    assert not re.search(r"\bnan\b|\binf\b", text)
    assert all(path.stat().st_size for path in written)
    assert {path.suffix for path in written} >= {".html", ".svg", ".csv"}


def test_the_numbers_are_kept_as_csv(folder: Path, tmp_path: Path) -> None:
    written = page.write(tmp_path / "report", data.load([folder]), "x")
    path = next(path for path in written if path.name.startswith("figure-6") and path.suffix == ".csv")
    rows = list(csv.DictReader(path.open()))
    assert [row["round-trip time, ms"] for row in rows] == ["0", "120", "200"]
    assert float(rows[1]["existing (IPsec)"]) == pytest.approx(212)


def test_no_results_is_said(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        data.load([tmp_path])
    assert "xenlab experiment" in (caught.value.hint or "")


def test_a_folder_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="typo"):
        data.load([folder, tmp_path / "typo"])


@pytest.mark.parametrize(
    "values",
    [
        {"lab": {}},
        {"lab": {"provider": "netns", "link": {}}},
        {"lab": []},
        {"figures": []},
        {"figures": {"run": 3}},
    ],
)
def test_a_file_that_is_no_run_is_named(folder: Path, values: dict[str, Any]) -> None:
    path = next(folder.glob("full-*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(LabError, match=path.name):
        data.load([folder])


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
