"""The figures of the report, and that they show what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.report import data
from lab.report.chart import Bars, Lines
from lab.report.dataset import Dataset, Slice
from lab.report.figures import Figure, sections
from tests.helpers.results import save_xen

DOCS = Path(__file__).parents[3] / "docs" / "results"
COMMITTED = ("ipsec", "move", "paper-netns", "quick", "recorded-busy", "recorded-idle", "xeon")


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
    assert together.points[0][0] == 0.0 and together.points[0][1] == pytest.approx(300.0)


def figure(runs: Dataset, name: str) -> Figure:
    """The first figure whose chart has a name that begins with `name`."""
    found = [each for section in sections(runs) for each in section.figures]
    return next(each for each in found if each.chart.name.startswith(name))


def rows(runs: Dataset, name: str) -> dict[str, dict[str, float]]:
    """The rows of the first bar chart of that name."""
    chart = figure(runs, name).chart
    assert isinstance(chart, Bars)
    return dict(chart.rows)


def test_bars_of_where_the_time_goes_are_the_times_of_figure_6(tmp_path: Path) -> None:
    here = tmp_path / "xen"
    for seconds in (95.0, 97.0):
        save_xen(here, "existing", 0.12, seconds=seconds, disk_seconds=26.0)
        phases = {"connect": 10.0, "memory": seconds - 25, "stopped": 4.0}
        save_xen(here, "live", 0.12, seconds=seconds, result={"phases": phases})
    save_xen(here, "paper", 0.12, seconds=43.0, steps={"gzip": 20.0, "scp": 10.0, "gunzip": 13.0})
    (runs,) = data.load([here])
    found = rows(runs, "phases")
    assert found["existing (IPsec)"] == {"memory": 96.0}  # the copy of its disk before is not counted
    assert found["xenplugin live"]["start"] == pytest.approx(11) and sum(found["xenplugin live"].values()) == 96
    (steps,) = rows(runs, "paper").values()
    assert steps == {"compress": 20.0, "scp": 10.0, "decompress": 13.0}
    (fixed,) = rows(runs, "figure-7").values()
    assert fixed == {"compress": 20.0, "decompress": 13.0}  # the names in its caption


@pytest.mark.parametrize("name", COMMITTED)
def test_phases_of_committed_results_add_up_to_their_medians(name: str) -> None:
    for runs, cell in ((each, cell) for each in data.load([DOCS / name]) for cell in each.runs):
        some = Slice(runs, cell.rate, cell.data)
        parts = some.phases(cell.way, cell.rtt)
        assert sum(parts.values()) == pytest.approx(some.median(cell.way, cell.rtt), abs=0.05), cell


def test_headings_name_the_measurement(folder: Path) -> None:
    (section,) = sections(data.load([folder])[0])
    assert section.title == "100 Mbit/s, 1 GB of files (1.12 GB with the file system's own)"
    assert section.notes == ["24 runs, 1 to 3 of each way at each round-trip time."]


def test_bytes_at_the_router_are_not_the_same_everywhere(folder: Path, tmp_path: Path) -> None:
    save_xen(tmp_path / "xen", "existing", 0.0, seconds=95.0, disk_seconds=26.0)
    native, xen = data.load([folder, tmp_path / "xen"])
    assert "Ethernet" in figure(xen, "router").words and "Ethernet" not in figure(native, "router").words
