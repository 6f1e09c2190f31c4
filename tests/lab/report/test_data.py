"""Which results are compared with each other, and which files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from lab.errors import LabError
from lab.report import data, page
from lab.report.claims import claims
from lab.report.dataset import Slice
from lab.report.figures import sections
from tests.helpers.results import RATE, save, save_xen


def test_medians_without_what_was_discarded(folder: Path) -> None:
    (runs,) = data.load([folder])
    some = Slice(runs, RATE, 10**9)
    assert some.median("static", 0.12) == pytest.approx(52.2)
    assert sum(some.phases("static", 0.12).values()) == pytest.approx(52.2)
    assert some.spread("static", "seconds")[0] == (0.0, 50.0, 90.0)
    assert len(runs.discarded) == 1 and some.ways[0] == "existing"


def test_runs_that_differ_in_more_than_way_and_link_are_not_compared(tmp_path: Path) -> None:
    here = tmp_path / "all"
    save(here, "static", 0.12, 50.0)
    guest = {"disk": 4 << 30, "memory": 2 << 30, "writes": 50}
    save(here, "static", 0.12, 51.0, 1, scenario={"guest": guest})
    save_xen(here, "existing", 0.12, seconds=90.0)
    first = next(here.glob("existing-0.12-*.json")).read_text()
    changes = [("host", {"cpu": "Z80"}), ("lab", {"xen": "4.20"}), ("versions", {"accel": "kvm"})]
    changes.append(("figures", {"guest": "pvh"}))
    for number, (part, change) in enumerate([*changes, ("lab", {"ipsec": "off"})]):
        values = json.loads(first)
        values[part] |= change
        (here / f"changed-{number}.json").write_text(json.dumps(values))
    values["lab"]["link"]["loss"] = 0.01
    (here / "lossy.json").write_text(json.dumps(values))
    sets = data.load([here])
    assert [len(several) for each in sets for several in each.runs.values()] == [1] * 9
    assert len(sets) == 8 and len({each.tag for each in sets}) == 8
    (both,) = (each for each in sets if len(each.runs) == 2)
    assert {cell.way for cell in both.runs} == {"existing", "plain"}  # by the IPsec that it went through


def test_results_from_before_there_was_a_choice_of_guests_are_of_pv_guests(tmp_path: Path) -> None:
    for guest in (None, "pv", "pvh"):
        save_xen(tmp_path, "live", 0.12, seconds=90.0, result={"phases": {"memory": 70.0}}, guest=guest)
    first, second = data.load([tmp_path])
    assert first.kind == "Real Xen, emulated CPU" and second.kind == "Real Xen, emulated CPU, PVH guest"
    assert [len(runs) for each in (first, second) for runs in each.runs.values()] == [2, 1]


def test_discarded_runs_of_a_guest_without_any_other_are_reported(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "other", "static", 0.12, 1.0, memory=1 << 30, discarded="the link was late")
    assert len(data.load([folder, tmp_path / "other"])[0].discarded) == 2


def test_guests_of_different_sizes_are_not_compared(folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "ipsec"
    for way, seconds in (("existing", 50.0), ("plain", 49.0)):
        save(small, way, 0.12, seconds, memory=512 << 20)
    xen = tmp_path / "xen"
    save_xen(xen, "static", 0.12, seconds=90.0, result={"phases": {"memory": 70.0}})
    sizes: dict[str, Any] = {"memory": {"size": 256 << 20}, "disk": {"size": 512 << 20, "data": 80 << 20}}
    save_xen(tmp_path / "other", "static", 0.12, seconds=90.0, result={"phases": {"memory": 70.0}}, **sizes)
    first, second, third, fourth = data.load([folder, small, xen, tmp_path / "other"])
    assert Slice(first, RATE, 0).median("existing", 0.12) == pytest.approx(212)
    assert Slice(second, RATE, 0).median("existing", 0.12) == pytest.approx(50)
    assert first.name.endswith("4 GiB disk, 2 GiB memory") and second.name.endswith("4 GiB disk, 512 MiB memory")
    assert third.name == "Real Xen, emulated CPU: the lab's own guest" and not third.native
    assert fourth.name == "Real Xen, emulated CPU: 512 MiB disk, 256 MiB memory"
    assert [each.tag for each in (first, second, third, fourth)] == ["", "4gib-512mib", "xen", "xen-512mib-256mib"]
    written = page.write(tmp_path / "report", [first, second, third, fourth], "x")
    text = written[0].read_text()
    assert text.count('<section id="set-') == 4 and len(set(written)) == len(written)
    assert all(text.count(f"<h2>{escape(each.name)};") == 1 for each in (first, second, third))


def test_recorded_memories_are_guests_of_their_own(folder: Path, tmp_path: Path) -> None:
    for load in ("idle", "busy"):
        guest = {"disk": 4 << 30, "memory": 2 << 30, "pages": load}
        save(tmp_path / load, "static", 0.12, 20.0, scenario={"guest": guest})
    sets = data.load([folder, tmp_path / "idle", tmp_path / "busy"])
    assert [each.tag for each in sets] == ["", "4gib-2gib-idle", "4gib-2gib-busy"]
    assert sets[1].name.endswith("4 GiB disk, 2 GiB memory (recorded, idle)")
    assert Slice(sets[1], RATE, 10**9).median("static", 0.12) == 20.0


def test_a_disk_that_was_moved_at_one_rate_has_no_section_at_another(folder: Path) -> None:
    """Ways that move no disk were measured at both rates, and appear with the disks of each."""
    gigabit = 10 * RATE
    for way in ("existing", "static"):
        save(folder, way, 0.12, 30.0, rate=gigabit)
    run = {"way": "static", "rtt": 0.12, "rate": gigabit, "data": 3 * 10**8, "repetition": 0}
    save(folder, "static", 0.12, 20.0, 1, rate=gigabit, run=run)
    (runs,) = data.load([folder])
    assert runs.disks_at(RATE) == [10**9] and runs.disks_at(gigabit) == [3 * 10**8, 10**9]
    titles = [section.title for section in sections(runs)]
    assert len(titles) == 3 and sum(title.startswith("1 Gbit/s") for title in titles) == 2
    assert {claim.where for claim in claims(runs)} == {"100 Mbit/s, 1 GB of files", *(
        f"1 Gbit/s, {size} of files" for size in ("300 MB", "1 GB"))}  # fmt: skip


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
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
def test_a_file_that_is_not_a_result_is_named(folder: Path, values: dict[str, Any]) -> None:
    path = next(folder.glob("full-*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(LabError, match=path.name):
        data.load([folder])
