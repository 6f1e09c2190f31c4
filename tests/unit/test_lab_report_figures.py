"""The report: what is made of results, and that the page holds it and asks nobody."""

from __future__ import annotations

import csv
import json
import re
from html import escape
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
DOCS = Path(__file__).parents[2] / "docs" / "results"


def suite(way: str) -> Suite:
    return {"existing": Suite.PAPER, "existing-gcm": Suite.TODAY}.get(way, Suite.OFF)


def save(
    folder: Path, way: str, rtt: float, seconds: float, number: int = 0,
    memory: int = 2 << 30, rate: int | None = RATE, **more: Any,
) -> None:  # fmt: skip
    result = Result(way, Spec(provider="netns", link=Profile(rtt=rtt, rate=rate), ipsec=suite(way)))
    moved = way not in ("existing", "plain")
    run = {"way": way, "rtt": rtt, "rate": rate, "data": 10**9 if moved else 0, "repetition": number}
    phases = {"connect": 1.0, "memory": seconds - 2, "stopped": 1.0}
    if way == "paper-partial":
        phases = {"compress": 20.0, "scp": seconds - 30, "decompress": 10.0}
    result.figures = {"run": run, "seconds": seconds, "phases": phases, "router_bytes": 10**9, "cpu_seconds": 20.0,
                      "downtime": 0.5 + rtt, "timeline": [[1.0, 10**7], [seconds, 12 * 10**6]],
                      "memory": {"size": memory, "stream": memory, "ratio": 3.5},
                      "disk": {"size": 4 << 30, "data": 1_123_456_789} if moved else None,
                      "scenario": {"guest": {"disk": 4 << 30, "memory": memory}}, **more}  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / f"{way}-{rtt}-{rate}-{number}.json"
    path.write_text(json.dumps(result.as_dict()))


def save_xen(folder: Path, way: str, rtt: float, rate: int | None = RATE, **figures: Any) -> None:
    result = Result(way, Spec(provider="qemu", link=Profile(rtt=rtt, rate=rate), ipsec=suite(way)))
    result.figures = {"router_bytes": 10**8, **figures}
    folder.mkdir(exist_ok=True)
    (folder / f"{way}-{rtt}-{len(list(folder.iterdir()))}.json").write_text(json.dumps(result.as_dict()))


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
    partial = found["partial takes 70 % or less of existing's time from 120 ms on"]
    assert partial.reached is None and partial.ours == "45 % to 47 %"  # the paper's own claims are not judged
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


def test_what_was_not_measured_is_not_judged(tmp_path: Path) -> None:
    """One RTT says nothing of every RTT; a guest that never stood still was measured all the same."""
    made = tmp_path / "one"
    for way, seconds in (("existing", 200.0), ("static", 50.0), ("full", 90.0), ("paper-full", 400.0)):
        save(made, way, 0.2, seconds)
    save(made, "live", 0.2, 60.0, downtime=0.0)
    rows = [claim for claim in claims(data.load([made])[0]) if claim.who == "goal"]
    assert len(rows) == 4 and {claim.reached for claim in rows} == {None}
    assert [claim.ours for claim in rows][:2] == ["at most 0.25 (200 ms alone)"] * 2
    assert any("0.00 of" in claim.ours for claim in rows)


def test_what_differs_in_more_than_way_and_link_does_not_meet(tmp_path: Path) -> None:
    here = tmp_path / "all"
    save(here, "static", 0.12, 50.0)
    guest = {"disk": 4 << 30, "memory": 2 << 30, "writes": 50}
    save(here, "static", 0.12, 51.0, 1, scenario={"guest": guest})
    save_xen(here, "existing", 0.12, seconds=90.0)
    first = next(here.glob("existing-0.12-*.json")).read_text()
    changes = [("host", {"cpu": "Z80"}), ("lab", {"xen": "4.20"}), ("versions", {"accel": "kvm"})]
    for number, (part, change) in enumerate([*changes, ("lab", {"ipsec": "off"})]):
        values = json.loads(first)
        values[part] |= change
        (here / f"changed-{number}.json").write_text(json.dumps(values))
    values["lab"]["link"]["loss"] = 0.01
    (here / "lossy.json").write_text(json.dumps(values))
    sets = data.load([here])
    assert [len(several) for each in sets for several in each.runs.values()] == [1] * 8
    assert len(sets) == 7 and len({each.tag for each in sets}) == 7
    (both,) = (each for each in sets if len(each.runs) == 2)
    assert {cell.way for cell in both.runs} == {"existing", "plain"}  # by the IPsec that it went through


def test_discarded_runs_of_a_guest_without_any_other_are_told(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "other", "static", 0.12, 1.0, memory=1 << 30, discarded="the link was late")
    assert len(data.load([folder, tmp_path / "other"])[0].discarded) == 2


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


def test_guests_of_different_sizes_do_not_meet(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "ipsec"
    for way, seconds in (("existing", 50.0), ("plain", 49.0)):
        save(small, way, 0.12, seconds, memory=512 << 20)
    xen = tmp_path / "xen"
    save_xen(xen, "static", 0.12, seconds=90.0, result={"phases": {"memory": 70.0}})
    sizes = {"memory": {"size": 256 << 20}, "disk": {"size": 512 << 20, "data": 80 << 20}}
    save_xen(tmp_path / "other", "static", 0.12, seconds=90.0, result={"phases": {"memory": 70.0}}, **sizes)
    first, second, third, fourth = data.load([folder, small, xen, tmp_path / "other"])
    assert first.median("existing", 0.12, RATE, 0) == pytest.approx(212)
    assert second.median("existing", 0.12, RATE, 0) == pytest.approx(50)
    assert first.name.endswith("4 GiB disk, 2 GiB memory") and second.name.endswith("4 GiB disk, 512 MiB memory")
    assert third.name == "Real Xen, emulated CPU: the lab's own guest" and not third.native
    assert fourth.name == "Real Xen, emulated CPU: 512 MiB disk, 256 MiB memory"
    assert [each.tag for each in (first, second, third, fourth)] == ["", "4gib-512mib", "xen", "xen-512mib-256mib"]
    written = page.write(tmp_path / "report", [first, second, third, fourth], "x")
    text = written[0].read_text()
    assert text.count("<section") == 4 and len(set(written)) == len(written)
    assert all(text.count(f"<h2>{escape(each.name)};") == 1 for each in (first, second, third))


def test_recorded_memories_are_guests_of_their_own(folder: Path, tmp_path: Path) -> None:
    for load in ("idle", "busy"):
        guest = {"disk": 4 << 30, "memory": 2 << 30, "pages": load}
        save(tmp_path / load, "static", 0.12, 20.0, scenario={"guest": guest})
    sets = data.load([folder, tmp_path / "idle", tmp_path / "busy"])
    assert [each.tag for each in sets] == ["", "4gib-2gib-idle", "4gib-2gib-busy"]
    assert sets[1].name.endswith("4 GiB disk, 2 GiB memory (recorded, idle)")
    assert sets[1].median("static", 0.12, RATE, 10**9) == 20.0


def test_no_value_of_one_kind_stands_for_another(folder: Path, tmp_path: Path) -> None:
    """The same rate on real Xen: its own table of claims."""
    for rtt in (0.0, 0.12):
        save_xen(tmp_path / "xen", "existing", rtt, seconds=100.0, disk_seconds=20.0, downtime=5.0)
        save_xen(tmp_path / "xen", "static", rtt, seconds=77.0, result={"phases": {"memory": 70.0}})
    written = page.write(tmp_path / "report", data.load([folder, tmp_path / "xen"]), "x")
    whole = written[0].read_text().partition("What was claimed")[2].partition("<section")[0]
    tables = dict(part.split("</h3>", 1) for part in whole.split("<h3>")[1:])
    native, xen = (tables[f"{name}"] for name in tables)
    assert "Native" in next(iter(tables)) and "Real Xen" in list(tables)[1]
    assert "at most 0.77" in xen and "at most 0.77" not in native
    assert "at most 0.26" in native and "at most 0.26" not in xen


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


@pytest.mark.parametrize("name", ["epyc", "epyc-recorded-busy", "xeon", "move"])
def test_so_they_are_of_what_was_measured(name: str) -> None:
    for runs, cell in ((each, cell) for each in data.load([DOCS / name]) for cell in each.runs):
        parts = runs.phases(cell.way, cell.rtt, cell.rate, cell.data)
        assert sum(parts.values()) == pytest.approx(runs.median(*vars(cell).values()), abs=0.05), cell


def test_ipsec_in_user_space_is_told_where_it_shows(folder: Path, tmp_path: Path) -> None:
    def told(runs: data.Set) -> list[bool]:
        page.write(tmp_path / "report", [runs], "x")
        claimed = (tmp_path / "report" / "index.html").read_text().partition("<section")[0]
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
