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
from lab.report import data, page, svg
from lab.report.chart import SEGMENTS, STYLES, Bars, Lines, Series, Strips, decades, ticks
from lab.report.claims import claims
from lab.report.figures import sections
from lab.results import Result
from lab.spec import Spec, Suite
from netem.profile import Profile

RATE = 100_000_000


def save(folder: Path, way: str, rtt: float, seconds: float, number: int = 0, **more: Any) -> None:
    result = Result(way, Spec(provider="netns", link=Profile(rtt=rtt, rate=RATE), ipsec=Suite.OFF))
    run = {"way": way, "rtt": rtt, "rate": RATE, "data": 0 if way == "existing" else 10**9, "repetition": number}
    phases = {"connect": 1.0, "memory": seconds - 2, "stopped": 1.0}
    if way == "paper-partial":
        phases = {"compress": 20.0, "scp": seconds - 30, "decompress": 10.0}
    result.figures = {"run": run, "seconds": seconds, "phases": phases, "router_bytes": 10**9, "cpu_seconds": 20.0,
                      "downtime": 0.5 + rtt, "timeline": [[1.0, 10**7], [seconds, 12 * 10**6]],
                      "memory": {"size": 2 << 30, "stream": 2 << 30, "ratio": 3.5}, **more}  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{way}-{rtt}-{number}.json"
    path.write_text(json.dumps(result.as_dict()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "results"
    for rtt in (0.0, 0.12, 0.2):
        save(made, "existing", rtt, 200 + 100 * rtt)
        save(made, "paper-partial", rtt, 100.0)
        save(made, "paper-full", rtt, 400.0)
        save(made, "full", rtt, 120.0)
        save(made, "live", rtt, 80.0)
        for number, more in enumerate((0, 1, 40)):
            save(made, "static", rtt, 50 + more + 10 * rtt, number)
    save(made, "static", 0.12, 9999.0, 7, discarded="the link was late")
    return made


def test_medians_without_what_was_discarded(folder: Path) -> None:
    (runs,) = data.load([folder])
    assert runs.median("static", 0.12, RATE, 10**9) == pytest.approx(52.2)
    assert sum(runs.phases("static", 0.12, RATE, 10**9).values()) == pytest.approx(52.2)
    assert runs.spread("static", RATE, 10**9, "seconds")[0] == (0.0, 50.0, 90.0)
    assert len(runs.discarded) == 1 and runs.ways(RATE, 10**9)[0] == "existing"


def test_claims_are_judged(folder: Path) -> None:
    together = "takes at most 0.3 of existing and the paper's way for the disk together, from 120 ms on"
    (runs,) = data.load([folder])
    found = {claim.says: claim for claim in claims(runs)}
    assert found["xenplugin static takes at most 0.3 of existing's time from 120 ms on"].reached is True
    assert found["partial takes 70 % or less of existing's time from 120 ms on"].reached is True
    assert found["xenplugin full is faster than the paper's full at every RTT"].reached is True
    assert found["static's time at 200 ms is at most 1.15 of that at 0 ms"].ours == "1.04"
    assert found[f"static {together}"].reached
    assert found[f"live {together}"].reached
    assert found["live's downtime is at most 1.2 of existing's and one RTT"].reached is True
    for rtt in (0.0, 0.12, 0.2):
        save(folder, "live", rtt, 80.0, downtime=1.21 * (0.5 + rtt) + rtt)
        save(folder, "static", rtt, 150.0)
        save(folder, "static", rtt, 150.0, 1)
    found = {claim.says: claim for claim in claims(data.load([folder])[0])}
    assert found["xenplugin static takes at most 0.3 of existing's time from 120 ms on"].reached is False
    assert found["xenplugin static is faster than existing at every RTT"].reached is True
    assert found["live's downtime is at most 1.2 of existing's and one RTT"].reached is False


def test_the_papers_figures_are_there(folder: Path) -> None:
    (section,) = sections(data.load([folder])[0])
    assert {figure.number for figure in section.figures} >= {6, 7, 9}
    seven = next(figure.chart for figure in section.figures if figure.number == 7)
    assert isinstance(seven, Bars) and seven.rows[0][1] == {"compress": 20.0, "decompress": 10.0}  # no scp
    nine = next(figure.chart for figure in section.figures if figure.number == 9)
    assert isinstance(nine, Lines) and 0.7 in [level for level, _ in nine.levels]
    six = next(figure.chart for figure in section.figures if figure.number == 6)
    assert isinstance(six, Lines)
    together = next(each for each in six.series if each.key == "existing+partial")
    assert together.points[0] == (0.0, pytest.approx(300.0))


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


def test_nothing_hangs_on_colour() -> None:
    """Each way has a marker or a dash that no other has, each segment of a bar a hatching."""
    drawn = [style for key, style in STYLES.items() if key != "paper"]  # which is paper-partial
    assert len({(style.marker, style.dash) for style in drawn}) == len(drawn)
    assert len({hatch for _, _, hatch in SEGMENTS}) == len(SEGMENTS)


def test_names_at_the_end_of_lines_do_not_meet() -> None:
    series = [Series(f"way-{n}", f"way {n}", [(0, 100 + n / 10), (1, 100 + n / 10)]) for n in range(9)]
    drawn = svg.draw(Lines("x", "x", "x", "y", series))
    places = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*class="name"', drawn))
    assert len(places) == 9 and all(b - a > 12 for a, b in pairwise(places))


@pytest.mark.parametrize("chart", [
    Lines("x", "x", "x", "y", [Series("a", "a", [(0, 0.0)])]),
    Lines("x", "x", "x", "y", [Series("a", "a", [(0, 0.001), (5, 4000.0)])], log=True),
    Bars("x", "x", "x", [("row", {"part": 0.0})]),
    Strips("x", "x", "x", "y", [Series("a", "a", [(1.0, 0.0)])]),
])  # fmt: skip
def test_charts_of_almost_nothing(chart: Any) -> None:
    drawn = svg.draw(chart)
    assert drawn.startswith("<svg") and "nan" not in drawn and "inf" not in drawn


def test_axes_have_round_numbers() -> None:
    assert ticks(447) == [0, 100, 200, 300, 400, 500]
    assert ticks(0.9)[-1] >= 0.9 and len(ticks(0.9)) < 10
    assert decades(0.3, 45) == [0.1, 1.0, 10.0, 100.0]
