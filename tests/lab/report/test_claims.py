"""The paper's claims and the goals: which are judged, and how."""

from __future__ import annotations

from pathlib import Path

from lab.report import data, page
from lab.report.claims import claims
from tests.helpers.results import save, save_xen


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


def test_goals_of_which_too_few_rtts_were_measured_are_not_judged(tmp_path: Path) -> None:
    """A goal for every RTT needs more than one of them. A downtime of 0 counts as measured."""
    made = tmp_path / "one"
    for way, seconds in (("existing", 200.0), ("static", 50.0), ("full", 90.0), ("paper-full", 400.0)):
        save(made, way, 0.2, seconds)
    save(made, "live", 0.2, 60.0, downtime=0.0)
    rows = [claim for claim in claims(data.load([made])[0]) if claim.who == "goal"]
    assert len(rows) == 4 and {claim.reached for claim in rows} == {None}
    assert [claim.ours for claim in rows][:2] == ["at most 0.25 (200 ms alone)"] * 2
    assert any("0.00 of" in claim.ours for claim in rows)
    save(made, "paper-partial", 0.2, 100.0)
    papers = {claim.says.partition(" ")[2]: claim.ours for claim in claims(data.load([made])[0])}
    assert papers["takes 70 % or less of existing's time from 120 ms on"] == "50 %"
    assert papers["is slower than existing below 60 ms, faster from 80 ms on"] == "faster at 200 ms"


def test_each_kind_of_lab_has_a_table_of_claims_of_its_own(folder: Path, tmp_path: Path) -> None:
    for rtt in (0.0, 0.12):
        save_xen(tmp_path / "xen", "existing", rtt, seconds=100.0, disk_seconds=20.0, downtime=5.0)
        save_xen(tmp_path / "xen", "static", rtt, seconds=77.0, result={"phases": {"memory": 70.0}})
    text = page.html(data.load([folder, tmp_path / "xen"]), "x")
    whole = text.partition('<section id="claims"')[2].partition("</section")[0]
    tables = dict(part.split("</h3>", 1) for part in whole.split("<h3>")[1:])
    native, xen = (tables[f"{name}"] for name in tables)
    assert "Native" in next(iter(tables)) and "Real Xen" in list(tables)[1]
    assert "at most 0.77" in xen and "at most 0.77" not in native
    assert "at most 0.26" in native and "at most 0.26" not in xen
